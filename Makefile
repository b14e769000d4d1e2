.PHONY: run test lint docs bench fuzz soak

run:
	scripts/run

test:
	scripts/test

lint:
	scripts/lint

docs:
	scripts/docs

bench:
	scripts/with-venv python bench/run.py

fuzz:
	scripts/fuzz

soak:
	scripts/test -m soak --timeout=0
