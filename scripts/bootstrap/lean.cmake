# Read by CMake right after llama.cpp's own project() call (CMAKE_PROJECT_llama.cpp_INCLUDE).
# llama-cpp-python forces the `common` library on in the cache; a normal variable outranks that.
# Nothing in the wheel uses it, and it is half of the build time.
set(LLAMA_BUILD_COMMON OFF)

# The source is pip's own unpacked copy; see source_edits.py for what is edited and why. The variables
# by which pip isolates a build (PYTHONPATH) are not for this Python, hence -I.
execute_process(
    COMMAND ${EDGESPEC_PYTHON} -I ${CMAKE_CURRENT_LIST_DIR}/source_edits.py ${CMAKE_CURRENT_SOURCE_DIR}
    ERROR_VARIABLE EDGESPEC_PROBLEM
    RESULT_VARIABLE EDGESPEC_STATUS)
if(EDGESPEC_PROBLEM MATCHES "built as it is")
    message(WARNING "${EDGESPEC_PROBLEM}")
elseif(EDGESPEC_STATUS)
    message(FATAL_ERROR "${EDGESPEC_PROBLEM}")
endif()
