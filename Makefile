.PHONY: run test lint docs bench coverage fuzz soak

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

coverage:
	scripts/coverage

fuzz:
	scripts/fuzz

soak:
	scripts/test -m soak --timeout=0
	[ "$$(id -u)" != 0 ] || scripts/test-unprivileged -m "unprivileged and slow"
