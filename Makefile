# The front door: `make demo` and `make test` work on a fresh Debian 12 with git and make.

PRESET ?= cpu
GALLOP := build/$(PRESET)/gallop
DEMO := build/demo
SAY := @printf '\n==> %s\n'

.PHONY: demo test test-crash build configure setup format clean

setup:
	$(SAY) 'Looking for missing Debian packages'
	@.ci/setup.sh

configure: setup
	$(SAY) 'Configuring preset $(PRESET)'
	@cmake --preset $(PRESET)

build: configure
	$(SAY) 'Building everything into build/$(PRESET)'
	@cmake --build --preset $(PRESET)

test: build
	$(SAY) 'Running the tests'
	@ctest --preset $(PRESET)

test-crash: configure
	$(SAY) 'Building the program'
	@cmake --build --preset $(PRESET) --target gallop
	$(SAY) 'Killing processes of runs at random moments; comparing every byte with an undisturbed run'
	@mkdir -p $(CURDIR)/build/crash
	@tests/crash/campaign.py $(GALLOP) . --kills 210 --each 10 --items 24 \
		--modes solo,mpirun,attach,disk,slurm --log build/crash/$$(date -u +%F).log

demo: configure
	$(SAY) 'Building the program'
	@cmake --build --preset $(PRESET) --target gallop
	$(SAY) 'Making a tiny model with random weights in $(DEMO)/model'
	@rm -rf $(DEMO)
	@$(GALLOP) make-model configs/models/tiny.yaml --out $(DEMO)/model --seed 1
	$(SAY) 'Rendering jobs/demo.yaml'
	@$(GALLOP) run jobs/demo.yaml
	$(SAY) 'The clip is'
	@ls $(CURDIR)/$(DEMO)/run/clips/*/*/*.mp4

format:
	@git ls-files '*.cpp' '*.hpp' '*.cu' '*.cuh' | xargs clang-format -i

clean:
	@rm -rf build
