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
	@rm -rf $(DEMO)
	$(SAY) 'Rendering clips of bouncing bodies with foal, a small model to learn from (examples/foal)'
	@examples/foal/demo --gallop $(GALLOP) --work $(DEMO) --sheet $(DEMO)/sheet.png
	$(SAY) 'The clips, and a sheet of them all'
	@ls $(CURDIR)/$(DEMO)/*/run/clips/*/*/*.mp4 $(CURDIR)/$(DEMO)/sheet.png

format:
	@git ls-files '*.cpp' '*.hpp' '*.cu' '*.cuh' | xargs clang-format -i

clean:
	@rm -rf build
