# Read by CMake right after llama.cpp's own project() call (CMAKE_PROJECT_llama.cpp_INCLUDE).
# llama-cpp-python forces the `common` library on in the cache; a normal variable outranks that.
# Nothing in the wheel uses it, and it is half of the build time.
set(LLAMA_BUILD_COMMON OFF)
