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

policy:  ## record, train and rehearse the shipped controller anew, some four hours on two cores
	uv run python cli.py collect --task lift --episodes 247 --objects 1 --seed 4 --camera-size 320 240 --cameras head --workers 2 --dataset single
	uv run python cli.py collect --task lift --episodes 145 --seed 11 --camera-size 320 240 --cameras head --workers 2 --dataset cluttered
	uv run python cli.py collect --task lift --episodes 180 --seed 12 --camera-size 320 240 --cameras head --workers 2 --dataset cluttered-2
	uv run python cli.py collect --task lift-varied --episodes 158 --seed 41 --camera-size 320 240 --cameras head --workers 2 --dataset varied
	uv run python cli.py dataset merge --dataset shipped --sources single cluttered cluttered-2 varied --cameras head
	OMP_NUM_THREADS=1 uv run python cli.py train controller --dataset shipped --name shipped --steps 12616 --override goal.kind=grasp encoder.around=128
	uv run python cli.py rehearse --scenes 131 --seed 7 --out rehearsed --workers 2
	uv run python cli.py rehearse --scenes 35 --seed 8 --policy runs/shipped/best --out rehearsed-1 --workers 2
	OMP_NUM_THREADS=1 uv run python cli.py train grasps --policy runs/shipped/best --rehearsals rehearsed rehearsed-1 --steps 1200 --out runs/shipped/first
	uv run python cli.py rehearse --scenes 79 --seed 9 --policy runs/shipped/first --out rehearsed-2 --workers 2
	OMP_NUM_THREADS=1 uv run python cli.py train grasps --policy runs/shipped/best --rehearsals rehearsed rehearsed-1 rehearsed-2 --out runs/shipped/grasps --steps 2000
	cp runs/shipped/grasps/about.json runs/shipped/grasps/config.json runs/shipped/grasps/model.safetensors deploy/policy/

pins:  ## print the versions of the current environment, for [tool.uv] constraint-dependencies
	uv export --no-hashes --no-annotate --no-header --no-emit-workspace --all-groups | sed 's/ *;.*//' | sort -u
