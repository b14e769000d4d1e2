.PHONY: run test lint bench coverage fuzz soak

run:
	scripts/run

test:
	scripts/test

lint:
	scripts/lint

bench:
	scripts/with-venv python bench/run.py

coverage:
	scripts/coverage

fuzz:
	scripts/fuzz

soak:
	scripts/test -m soak --timeout=0
