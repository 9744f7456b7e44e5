# add_fuzzer(NAME name SRCS name_fuzz.cc … [DEPS …])
#
# Makes the program <name>_fuzz from files with one LLVMFuzzerTestOneInput(). In the fuzz preset it is a libFuzzer
# program, which ./dev fuzz runs; in the others it replays the inputs kept in corpus/<name>/, which ctest knows as
# fuzz.<name>: what was found stays found.
add_custom_target(fuzzers)
function(add_fuzzer)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  set(program ${ARG_NAME}_fuzz)
  set(corpus ${CMAKE_CURRENT_SOURCE_DIR}/corpus/${ARG_NAME})
  if(NOT IS_DIRECTORY ${corpus})
    message(FATAL_ERROR "The fuzzer ${ARG_NAME} has no corpus: put inputs into ${corpus}/.")
  endif()
  add_executable(${program} ${ARG_SRCS})
  target_link_libraries(${program} PRIVATE ${ARG_DEPS})
  add_dependencies(fuzzers ${program})
  if(FAIRLEAD_FUZZ)
    target_link_options(${program} PRIVATE -fsanitize=fuzzer)
  else()
    target_sources(${program} PRIVATE ${CMAKE_SOURCE_DIR}/tests/fuzz/replay_main.cc)
    add_dependencies(test_programs ${program})
    add_test(NAME fuzz.${ARG_NAME} COMMAND ${program} ${corpus})
  endif()
endfunction()
