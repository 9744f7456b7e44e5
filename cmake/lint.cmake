# The house lint in the build: a forbidden include, a cycle or a banned call fails it; all other rules run as a test.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
file(GLOB_RECURSE lint_inputs CONFIGURE_DEPENDS
  ${CMAKE_SOURCE_DIR}/src/*.cc ${CMAKE_SOURCE_DIR}/src/*.h ${CMAKE_SOURCE_DIR}/src/CMakeLists.txt
  ${CMAKE_SOURCE_DIR}/tests/*.cc ${CMAKE_SOURCE_DIR}/tests/*.h ${CMAKE_SOURCE_DIR}/bench/*.cc
  ${CMAKE_SOURCE_DIR}/bench/*.h ${CMAKE_SOURCE_DIR}/tools/lint.py ${CMAKE_SOURCE_DIR}/tools/lint_rules/*.py)
set(lint_stamp ${CMAKE_BINARY_DIR}/lint.stamp)
add_custom_command(
  OUTPUT ${lint_stamp}
  COMMAND ${CMAKE_COMMAND} -E env PYTHONDONTWRITEBYTECODE=1
          ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/tools/lint.py --architecture --stamp ${lint_stamp}
  DEPENDS ${lint_inputs}
  COMMENT "Checking layers and banned calls"
  VERBATIM)
add_custom_target(lint ALL DEPENDS ${lint_stamp})

foreach(script lint lint_test run_tests_test)
  add_test(NAME tools.${script} COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_SOURCE_DIR}/tools/${script}.py)
endforeach()
add_test(NAME tools.models_run_test COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_SOURCE_DIR}/models/run_test.py)
