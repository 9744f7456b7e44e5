# add_module(NAME name SRCS a.cc … [TESTS a_test.cc …] [MAIN program main.cc] [DEPS other_module lib …] [TEST_DEPS …])
#
# Makes, for one folder of src/:
#   fairlead_<name>          the static library
#   fairlead_<name>_headers  every header compiled alone, when the target headers is built
#   <name>_test              one test binary, each of its tests known to ctest
#   <program>                from MAIN: an executable, main.cc and the library
# A source file that stands in the folder and is listed nowhere fails the configuration.
function(add_module)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;TESTS;MAIN;DEPS;TEST_DEPS" ${ARGN})
  set(library fairlead_${ARG_NAME})

  file(GLOB present RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} CONFIGURE_DEPENDS *.cc)
  foreach(file ${present})
    if(NOT file IN_LIST ARG_SRCS AND NOT file IN_LIST ARG_TESTS AND NOT file IN_LIST ARG_MAIN)
      message(FATAL_ERROR "${CMAKE_CURRENT_SOURCE_DIR}/${file} is listed in no add_module(): add it or delete it.")
    endif()
  endforeach()

  add_library(${library} STATIC ${ARG_SRCS})
  target_include_directories(${library} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(${library} PUBLIC ${ARG_DEPS})
  target_precompile_headers(${library} REUSE_FROM fairlead_pch)

  file(GLOB headers RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} CONFIGURE_DEPENDS *.h)
  set(header_sources)
  foreach(header ${headers})
    set(source ${CMAKE_CURRENT_BINARY_DIR}/headers/${header}.cc)
    file(CONFIGURE OUTPUT ${source} CONTENT
      "#include \"${ARG_NAME}/${header}\"\n#include \"${ARG_NAME}/${header}\"  // NOLINT(readability-duplicate-include)\n")
    list(APPEND header_sources ${source})
  endforeach()
  if(header_sources)
    # No precompiled header here: a header that forgets an include must fail.
    add_library(${library}_headers OBJECT EXCLUDE_FROM_ALL ${header_sources})
    target_link_libraries(${library}_headers PRIVATE ${library})
    add_dependencies(headers ${library}_headers)
  endif()

  if(ARG_MAIN)
    list(POP_FRONT ARG_MAIN program)
    add_executable(${program} ${ARG_MAIN})
    target_link_libraries(${program} PRIVATE ${library})
    target_precompile_headers(${program} REUSE_FROM fairlead_pch)
  endif()

  if(ARG_TESTS)
    add_executable(${ARG_NAME}_test ${ARG_TESTS})
    target_link_libraries(${ARG_NAME}_test PRIVATE ${library} ${ARG_TEST_DEPS} GTest::gmock GTest::gtest_main)
    use_test_headers(${ARG_NAME}_test)
    add_dependencies(test_programs ${ARG_NAME}_test)
    gtest_discover_tests(${ARG_NAME}_test TEST_PREFIX ${ARG_NAME}. DISCOVERY_MODE PRE_TEST PROPERTIES TIMEOUT 300)
  endif()
endfunction()

# The precompiled headers: one for the library code, one for the tests.
function(add_precompiled_headers)
  foreach(kind pch test_pch)
    set(source ${CMAKE_BINARY_DIR}/${kind}.cc)
    file(CONFIGURE OUTPUT ${source} CONTENT "namespace {}\n")
    add_library(fairlead_${kind} OBJECT ${source})
  endforeach()
  target_precompile_headers(fairlead_pch PRIVATE ${CMAKE_SOURCE_DIR}/cmake/pch.h)
  target_precompile_headers(fairlead_test_pch PRIVATE ${CMAKE_SOURCE_DIR}/cmake/pch.h <gtest/gtest.h>)
  target_link_libraries(fairlead_test_pch PRIVATE GTest::gtest)
  target_compile_options(fairlead_test_pch PRIVATE -O0)
endfunction()

# What the sources of tests share. They are compiled once and run once: to optimise them takes longer than it saves
# (what they test is optimised), and the precompiled header has to agree.
function(use_test_headers target)
  target_precompile_headers(${target} REUSE_FROM fairlead_test_pch)
  target_compile_options(${target} PRIVATE -O0)
endfunction()
