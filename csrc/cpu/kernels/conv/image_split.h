// The split of the sum of a weight gradient over the images of a batch.
#pragma once

#include "cpu/kernels/loops.h"

namespace chainrule::CR_ISA {

// Splits the images into chunks. Each chunk has separate partial sums, which are added in order.
// The number of chunks, and therefore the bits, depend on the shape only.
struct ImageSplit {
  static constexpr int64_t max_chunks = 16;
  static constexpr int64_t max_bytes = int64_t{16} << 20;  // of all partial sums
  int64_t images, chunks;

  ImageSplit(int64_t batch, int64_t partial_bytes)
      : images(batch),
        chunks(max(1, min(min(max_chunks, batch), max_bytes / max(1, partial_bytes)))) {}
  int64_t begin(int64_t chunk) const { return chunk * images / chunks; }
  int64_t end(int64_t chunk) const { return begin(chunk + 1); }
  int64_t max_images() const { return ceil_div(images, chunks); }  // of a chunk
};

}  // namespace chainrule::CR_ISA
