// runner.h: runs batches of one family on one lane as captured graphs, without the interpreter.
//
// A batch is gathered into pinned memory, copied over, run by the graph of the smallest bucket that
// holds it, copied back and handed out. Requests reach it as payloads: a request's token is the
// address of its Payload.
//
// Thread safety: run() and time() by one thread at a time (a mutex sees to it); add() before.
//
// Invariants:
// 1. Graphs of a runner read the input block and write the output block, laid out for their bucket.
// 2. Nothing of a launch is in flight on the stream when run() returns, but on a lost device.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "cuda/memory.h"
#include "cuda/partition.h"
#include "rt/launch.h"
#include "rt/native.h"

namespace st::cuda {

// One request: where its inputs lie and where its outputs go, `samples` rows each. The caller keeps
// all of it alive and unchanged until the request has ended.
struct Payload {
  std::uint32_t member = 0;  // the row of the family's arena
  std::uint32_t samples = 1;
  std::vector<std::uint64_t> inputs;   // addresses, contiguous rows
  std::vector<std::uint64_t> outputs;  // likewise
  bool on_device = false;              // whether these are addresses of device memory
  CUevent ready = nullptr;  // what must have happened before inputs are read; may be null
};

// Where the rows of each tensor lie in a block for a bucket of `rows` rows.
struct BlockLayout {
  std::vector<std::size_t> offsets;
  std::size_t bytes = 0;
};
BlockLayout layout(std::span<const std::size_t> row_bytes, std::uint32_t rows);

class Runner {
 public:
  // `row_bytes` of each input and output; the members of the slots go before the inputs, as int64.
  Runner(std::shared_ptr<const Device> device, std::shared_ptr<Stream> stream,
         std::vector<std::size_t> input_row_bytes, std::vector<std::size_t> output_row_bytes,
         std::vector<std::uint32_t> buckets, std::int64_t spin_ns);

  const std::vector<std::uint32_t>& buckets() const { return buckets_; }
  const std::shared_ptr<DeviceMemory>& input_block() const { return device_in_; }
  const std::shared_ptr<DeviceMemory>& output_block() const { return device_out_; }
  BlockLayout input_layout(std::uint32_t bucket) const { return layout(in_rows_, bucket); }
  BlockLayout output_layout(std::uint32_t bucket) const { return layout(out_rows_, bucket); }

  void add(std::uint32_t bucket, std::shared_ptr<Exec> exec);  // std::invalid_argument: no bucket
  void clear();  // drops graphs and blocks: their memory goes; later launches fail with kNotFound

  // run: 0, or packed() of the call that failed.
  int run(std::span<const Payload* const> requests) noexcept;
  // time: wall nanoseconds of one batch, and the device's own for the graph. Throws DriverError.
  std::pair<std::int64_t, std::int64_t> time(std::span<const Payload* const> requests);

  // native: for Executor::set_native; keeps the runner alive.
  static rt::Native native(const std::shared_ptr<Runner>& runner);

 private:
  struct Span {
    const Payload* request;
    std::uint32_t first;  // of the request's rows
    std::uint32_t rows;
    std::uint32_t at;  // row of the batch
  };

  void run_sorted(std::span<const Payload* const> requests);
  void run_chunk(std::uint32_t rows);
  std::uint32_t bucket_for(std::uint32_t rows) const;
  void gather(std::uint32_t bucket, std::uint32_t rows);
  void stage_rows(const BlockLayout& at, std::size_t input, const Span& span, std::uint32_t to);
  void copy_in(std::uint32_t bucket, std::uint32_t rows);
  void copy_out(std::uint32_t bucket);
  void scatter(std::uint32_t bucket);
  void copy(std::uint64_t to, std::uint64_t from, std::size_t bytes);
  bool any_on(bool device) const;
  void settle() noexcept;

  const std::shared_ptr<const Device> device_;
  const std::shared_ptr<Stream> stream_;
  const std::vector<std::size_t> in_rows_;   // bytes a row; [0] is the members'
  const std::vector<std::size_t> out_rows_;  // bytes a row
  const std::vector<std::uint32_t> buckets_;
  const std::int64_t spin_ns_;
  std::shared_ptr<DeviceMemory> device_in_;
  std::shared_ptr<DeviceMemory> device_out_;
  std::shared_ptr<PinnedMemory> host_in_;
  std::shared_ptr<PinnedMemory> host_out_;
  Event done_;
  Event begin_;
  Event end_;

  std::mutex mutex_;  // guards everything below, and the blocks
  std::map<std::uint32_t, std::shared_ptr<Exec>> graphs_;
  std::vector<const Payload*> order_;
  std::vector<Span> spans_;
  bool timing_ = false;
};

}  // namespace st::cuda
