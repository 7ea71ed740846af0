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

policy:  ## record demonstrations and train the shipped controller anew, about an hour on two cores
	uv run python cli.py collect --task lift --episodes 247 --objects 1 --seed 4 --camera-size 320 240 --workers 2 --dataset lift
	OMP_NUM_THREADS=1 uv run python cli.py train controller --dataset lift --name lift --steps 6000
	cp runs/lift/best/about.json runs/lift/best/config.json runs/lift/best/model.safetensors deploy/policy/

pins:  ## print the versions of the current environment, for [tool.uv] constraint-dependencies
	uv export --no-hashes --no-annotate --no-header --no-emit-workspace --all-groups | sed 's/ *;.*//' | sort -u
