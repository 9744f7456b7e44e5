# Compiler, warnings, sanitizers, ccache and the precompiled headers: everything that holds for every target.

if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang" OR CMAKE_CXX_COMPILER_VERSION VERSION_LESS 19)
  message(FATAL_ERROR "Fairlead needs clang 19 or newer (GCC 12 miscompiles coroutines): configure by './dev build' or a preset.")
endif()

set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

option(FAIRLEAD_WERROR "Warnings are errors" ON)
set(FAIRLEAD_SANITIZE "" CACHE STRING "Value for -fsanitize=, empty for none")
option(FAIRLEAD_FUZZ "Build the libFuzzer targets" OFF)

add_compile_options(
  -Wall -Wextra -Wshadow -Wconversion -Wnon-virtual-dtor -Woverloaded-virtual -Wimplicit-fallthrough
  -fno-omit-frame-pointer -fstack-protector-strong)
if(FAIRLEAD_WERROR)
  add_compile_options(-Werror)
endif()
# One flag for libraries and programs, so that both can share the precompiled headers.
add_compile_options(-fPIE)
add_link_options(-fuse-ld=lld -pie)
if(FAIRLEAD_SANITIZE)
  add_compile_options(-fsanitize=${FAIRLEAD_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${FAIRLEAD_SANITIZE})
endif()
if(FAIRLEAD_FUZZ)
  # Coverage for every object; only the fuzz targets link the fuzzer's main.
  add_compile_options(-fsanitize=fuzzer-no-link)
  add_link_options(-fsanitize=fuzzer-no-link)
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  # Without timestamps in the precompiled header, ccache can serve the files that use it.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      ${CCACHE_PROGRAM})
  add_compile_options("SHELL:-Xclang -fno-pch-timestamp")
endif()
