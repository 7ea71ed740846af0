.PHONY: check format lint types test slow policy pins

check: lint types test  ## everything that must be green before a commit

format:  ## rewrite in the project's style
	uv run ruff format . && uv run ruff check --fix .

lint:
	uv run ruff format --check . && uv run ruff check .

types: .typecheck/dexloop
	uv run mypy

.typecheck/dexloop:  # a type checker sees the package through this link
	mkdir -p .typecheck && ln -sfn .. .typecheck/dexloop

test:  ## the default tests, under 10 minutes on two cores
	uv run pytest -n 2

slow:  ## the tests that take minutes
	uv run pytest -n 2 -m slow

policy:  ## record, train and rehearse the shipped controller anew, some five hours on two cores
	bash deploy/policy/recipe.sh

pins:  ## print the versions of the current environment, for [tool.uv] constraint-dependencies
	uv export --no-hashes --no-annotate --no-header --no-emit-workspace --all-groups | sed 's/ *;.*//' | sort -u
