// CUDA stream type, in plain C++ for code without the CUDA headers.
#pragma once

struct CUstream_st;

namespace chainrule::cuda {

using Stream = CUstream_st*;

// The calling thread's stream.
Stream current_stream();

}  // namespace chainrule::cuda
