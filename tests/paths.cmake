# No tracked text may name a folder of somebody's machine. Usage: cmake -DROOT=CHECKOUT -P paths.cmake
# Without git or outside of a checkout there is nothing tracked to look at: prints "skipped".
cmake_minimum_required(VERSION 3.25)

# Written so that this file does not name one itself.
set(pattern "(^|[^A-Za-z0-9_.}~-])/(work|root|home|Users|mnt|scratch)/[A-Za-z0-9_.]")

find_program(GIT git)
if(NOT GIT OR NOT EXISTS ${ROOT}/.git)
  message(STATUS "skipped: not a git checkout")
  return()
endif()
execute_process(COMMAND ${GIT} -c safe.directory=* grep -nIE "${pattern}"
                WORKING_DIRECTORY ${ROOT} RESULT_VARIABLE code OUTPUT_VARIABLE found
                ERROR_VARIABLE failed)
if(code EQUAL 0)
  message(FATAL_ERROR "tracked text names a machine's folder:\n${found}")
elseif(NOT code EQUAL 1)
  message(FATAL_ERROR "git grep failed: ${failed}")
endif()
