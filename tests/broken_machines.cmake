# Tests that break machines under the program: processes that are killed, disks that refuse, Slurm nodes that are lost.

# The batch scripts' supervisor, with launchers that lie.
add_test(NAME slurm.supervise
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/slurm/supervise_test.sh ${PROJECT_SOURCE_DIR})
set_tests_properties(slurm.supervise PROPERTIES LABELS slurm TIMEOUT 300)
find_program(SHELLCHECK shellcheck)
if(SHELLCHECK)
  file(GLOB batch_scripts CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/slurm/*
       ${CMAKE_CURRENT_SOURCE_DIR}/slurm/*.sh)
  add_test(NAME slurm.shellcheck COMMAND ${SHELLCHECK} --severity=warning ${batch_scripts})
  set_tests_properties(slurm.shellcheck PROPERTIES LABELS slurm)
endif()

# What follows runs the whole program, again and again: not under sanitizers.
if(NOT TARGET gallop OR GALLOP_SANITIZE)
  return()
endif()

add_library(fault_shim MODULE faults/fault_shim.c)
target_link_libraries(fault_shim PRIVATE ${CMAKE_DL_LIBS})

# Three pretended nodes on this machine; skips, and says so, without root or Slurm. The other cases of the
# script take as long again: cluster_test.sh GALLOP TREE SHIM mpirun signal batch-host.
add_test(NAME slurm.cluster
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/slurm/cluster_test.sh $<TARGET_FILE:gallop>
          ${PROJECT_SOURCE_DIR} $<TARGET_FILE:fault_shim> finish array cancel requeue crash time)
set_tests_properties(slurm.cluster PROPERTIES LABELS slurm SKIP_RETURN_CODE 77 TIMEOUT 900)

# The long campaign is `make test-crash`.
add_test(NAME farm.crash
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/crash/campaign.py $<TARGET_FILE:gallop> ${PROJECT_SOURCE_DIR}
          --kills 9 --each 3 --items 6 --seed 1)
set_tests_properties(farm.crash PROPERTIES LABELS crash TIMEOUT 900)

# Each third kind of write; all of them with --every 1, each several times with --all.
add_test(NAME farm.faults
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/faults/faults.py $<TARGET_FILE:gallop> ${PROJECT_SOURCE_DIR}
          $<TARGET_FILE:fault_shim> --every 3)
set_tests_properties(farm.faults PROPERTIES LABELS faults TIMEOUT 900)
