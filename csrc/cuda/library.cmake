# bigfast/_cuda.so: needs nvcc and torch's headers, but neither a GPU nor a torch with CUDA. One
# binary serves every machine: the CUDA runtime is inside.
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
# Machine code for each, and PTX of sm_80, which GPUs to come compile for themselves.
set(BIGFAST_CUDA_ARCHITECTURES "75-real;80;90a-real;100a-real;120-real" CACHE STRING "CMake's names")

# torch's current stream comes from libtorch_cuda.so, which a torch without CUDA lacks: linked is a
# library of that name with that one function; loaded is torch's own, already in the process.
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/torch_cuda.cpp CONTENT
     "extern \"C\" int aoti_torch_get_current_cuda_stream(int, void**) { return 1; }\n")
add_library(torch_cuda_stub SHARED ${CMAKE_BINARY_DIR}/torch_cuda.cpp)
set_target_properties(torch_cuda_stub PROPERTIES
                      OUTPUT_NAME torch_cuda CXX_VISIBILITY_PRESET default
                      LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/stub)

add_library(_cuda MODULE ${CUDA_SOURCES} ${CUDA_BINDINGS})
set_target_properties(_cuda PROPERTIES
                      PREFIX "" SUFFIX ".so" LIBRARY_OUTPUT_DIRECTORY ${OUTPUT_DIR}
                      CUDA_ARCHITECTURES "${BIGFAST_CUDA_ARCHITECTURES}"
                      CUDA_VISIBILITY_PRESET hidden SKIP_BUILD_RPATH ON)
target_include_directories(_cuda PRIVATE csrc)
target_include_directories(_cuda SYSTEM PRIVATE ${TORCH_DIR}/include ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_compile_definitions(_cuda PRIVATE ${STABLE_ABI} BIGFAST_NAMESPACE=bigfast BIGFAST_KEY=CUDA
                                         BIGFAST_CUDA USE_CUDA)
target_compile_options(_cuda PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra>)
target_link_libraries(_cuda PRIVATE ${TORCH_DIR}/lib/libtorch_cpu${CMAKE_SHARED_LIBRARY_SUFFIX}
                                    torch_cuda_stub)
