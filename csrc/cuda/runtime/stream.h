// The queue of work that launches and copies go to. Plain C++, so that code without CUDA's headers
// can pass it on.
#pragma once

struct CUstream_st;

namespace chainrule::cuda {

using Stream = CUstream_st*;

// The calling thread's own.
Stream current_stream();

}  // namespace chainrule::cuda
