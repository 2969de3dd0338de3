#include "cuda/runner.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "rt/clock.h"

namespace st::cuda {
namespace {

constexpr std::size_t kAlign = 256;  // what kernels may assume of a tensor's address

std::vector<std::size_t> with_members(std::vector<std::size_t> row_bytes) {
  row_bytes.insert(row_bytes.begin(), sizeof(std::int64_t));
  return row_bytes;
}

std::vector<std::uint32_t> ascending(std::vector<std::uint32_t> buckets) {
  std::sort(buckets.begin(), buckets.end());
  if (buckets.empty() || buckets.front() == 0) {
    throw std::invalid_argument("buckets: needs at least one, each at least 1");
  }
  return buckets;
}

}  // namespace

BlockLayout layout(std::span<const std::size_t> row_bytes, std::uint32_t rows) {
  BlockLayout block;
  for (const std::size_t bytes : row_bytes) {
    block.offsets.push_back(block.bytes);
    block.bytes += (bytes * rows + kAlign - 1) / kAlign * kAlign;
  }
  return block;
}

Runner::Runner(std::shared_ptr<const Device> device, std::shared_ptr<Stream> stream,
               std::vector<std::size_t> input_row_bytes, std::vector<std::size_t> output_row_bytes,
               std::vector<std::uint32_t> buckets, std::int64_t spin_ns)
    : device_(std::move(device)),
      stream_(std::move(stream)),
      in_rows_(with_members(std::move(input_row_bytes))),
      out_rows_(std::move(output_row_bytes)),
      buckets_(ascending(std::move(buckets))),
      spin_ns_(spin_ns),
      device_in_(std::make_shared<DeviceMemory>(device_, input_layout(buckets_.back()).bytes)),
      device_out_(std::make_shared<DeviceMemory>(device_, output_layout(buckets_.back()).bytes)),
      host_in_(std::make_shared<PinnedMemory>(device_, device_in_->bytes())),
      host_out_(std::make_shared<PinnedMemory>(device_, device_out_->bytes())),
      done_(device_),
      begin_(device_, true),
      end_(device_, true) {}

void Runner::add(std::uint32_t bucket, std::shared_ptr<Exec> exec) {
  if (!std::binary_search(buckets_.begin(), buckets_.end(), bucket)) {
    throw std::invalid_argument("bucket: " + std::to_string(bucket) + " is none of this runner's");
  }
  exec->upload(*stream_);
  ST_ON(*device_, cuStreamSynchronize, stream_->handle());
  const std::lock_guard lock(mutex_);
  graphs_[bucket] = std::move(exec);
}

void Runner::clear() {
  const std::lock_guard lock(mutex_);
  graphs_.clear();
  device_in_.reset();
  device_out_.reset();
  host_in_.reset();
  host_out_.reset();
}

int Runner::run(std::span<const Payload* const> requests) noexcept {
  const std::lock_guard lock(mutex_);
  try {
    device_->use();
    run_sorted(requests);
    return 0;
  } catch (const DriverError& error) {
    settle();
    return packed(error.call, error.code);
  }
}

std::pair<std::int64_t, std::int64_t> Runner::time(std::span<const Payload* const> requests) {
  const std::lock_guard lock(mutex_);
  device_->use();
  timing_ = true;
  const rt::TimeNs start = rt::now_ns();
  try {
    run_sorted(requests);
  } catch (const DriverError&) {
    timing_ = false;
    settle();
    throw;
  }
  timing_ = false;
  const rt::TimeNs wall = rt::now_ns() - start;
  return {wall, static_cast<std::int64_t>(end_.milliseconds_since(begin_) * 1e6)};
}

rt::Native Runner::native(const std::shared_ptr<Runner>& runner) {
  const auto call = [](void* context, const st_launch* launch) {
    static_assert(sizeof(std::uint64_t) == sizeof(const Payload*));
    const auto* payloads = reinterpret_cast<const Payload* const*>(launch->tokens);
    return static_cast<Runner*>(context)->run({payloads, launch->count});
  };
  return {{call, runner.get()}, runner};
}

// Requests of one member adjacent: a super-kernel then reads that member's weights once.
void Runner::run_sorted(std::span<const Payload* const> requests) {
  order_.assign(requests.begin(), requests.end());
  std::stable_sort(order_.begin(), order_.end(),
                   [](const Payload* a, const Payload* b) { return a->member < b->member; });
  std::uint32_t rows = 0;
  spans_.clear();
  for (const Payload* request : order_) {
    for (std::uint32_t first = 0; first < request->samples;) {
      const std::uint32_t fit = std::min(request->samples - first, buckets_.back() - rows);
      spans_.push_back({request, first, fit, rows});
      first += fit;
      rows += fit;
      if (rows < buckets_.back()) continue;
      run_chunk(rows);
      spans_.clear();
      rows = 0;
    }
  }
  if (rows > 0) run_chunk(rows);
}

void Runner::run_chunk(std::uint32_t rows) {
  const std::uint32_t bucket = bucket_for(rows);
  const auto graph = graphs_.find(bucket);
  if (graph == graphs_.end()) throw DriverError(Entry::cuGraphLaunch, kNotFound, "no graph");
  gather(bucket, rows);
  copy_in(bucket, rows);
  if (timing_) begin_.record(*stream_);
  ST_ON(*device_, cuGraphLaunch, graph->second->handle(), stream_->handle());
  if (timing_) end_.record(*stream_);
  copy_out(bucket);
  done_.record(*stream_);
  done_.wait(spin_ns_);
  scatter(bucket);
}

std::uint32_t Runner::bucket_for(std::uint32_t rows) const {
  return *std::lower_bound(buckets_.begin(), buckets_.end(), rows);
}

void Runner::gather(std::uint32_t bucket, std::uint32_t rows) {
  const BlockLayout at = input_layout(bucket);
  auto* members = reinterpret_cast<std::int64_t*>(host_in_->data() + at.offsets[0]);
  for (const Span& span : spans_) {
    std::fill_n(members + span.at, span.rows, std::int64_t{span.request->member});
    for (std::size_t i = 1; i < in_rows_.size(); ++i) stage_rows(at, i, span, span.at);
  }
  // Padding repeats the last row: a member that is there, and a value that its model accepts.
  const Span& last = spans_.back();
  const Span pad{last.request, last.first + last.rows - 1, 1, last.at};
  for (std::uint32_t row = rows; row < bucket; ++row) {
    members[row] = last.request->member;
    for (std::size_t i = 1; i < in_rows_.size(); ++i) stage_rows(at, i, pad, row);
  }
}

void Runner::stage_rows(const BlockLayout& at, std::size_t input, const Span& span,
                        std::uint32_t to) {
  if (span.request->on_device) return;
  const std::size_t bytes = in_rows_[input];
  const auto* from = reinterpret_cast<const std::byte*>(span.request->inputs[input - 1]);
  std::memcpy(host_in_->data() + at.offsets[input] + to * bytes, from + span.first * bytes,
              span.rows * bytes);
}

void Runner::copy_in(std::uint32_t bucket, std::uint32_t rows) {
  const BlockLayout at = input_layout(bucket);
  const std::uint64_t block = device_in_->address();
  // With no input on the host only the members, which come first, have to go over.
  const bool whole = any_on(false) && at.offsets.size() > 1;
  copy(block, host_in_->address(), whole ? at.bytes : in_rows_[0] * bucket);
  if (!any_on(true)) return;
  for (const Span& span : spans_) {
    const Payload& request = *span.request;
    if (!request.on_device) continue;
    if (request.ready != nullptr) {
      ST_ON(*device_, cuStreamWaitEvent, stream_->handle(), request.ready, 0);
    }
    const bool last = span.at + span.rows == rows;
    for (std::size_t i = 1; i < in_rows_.size(); ++i) {
      const std::uint64_t to = block + at.offsets[i];
      const std::uint64_t from = request.inputs[i - 1] + span.first * in_rows_[i];
      copy(to + span.at * in_rows_[i], from, span.rows * in_rows_[i]);
      for (std::uint32_t row = rows; last && row < bucket; ++row) {
        copy(to + row * in_rows_[i], from + (span.rows - 1) * in_rows_[i], in_rows_[i]);
      }
    }
  }
}

void Runner::copy_out(std::uint32_t bucket) {
  const BlockLayout at = output_layout(bucket);
  const std::uint64_t block = device_out_->address();
  if (any_on(false)) copy(host_out_->address(), block, at.bytes);
  for (const Span& span : spans_) {
    if (!span.request->on_device) continue;
    for (std::size_t i = 0; i < out_rows_.size(); ++i) {
      copy(span.request->outputs[i] + span.first * out_rows_[i],
           block + at.offsets[i] + span.at * out_rows_[i], span.rows * out_rows_[i]);
    }
  }
}

void Runner::scatter(std::uint32_t bucket) {
  const BlockLayout at = output_layout(bucket);
  for (const Span& span : spans_) {
    if (span.request->on_device) continue;
    for (std::size_t i = 0; i < out_rows_.size(); ++i) {
      auto* to = reinterpret_cast<std::byte*>(span.request->outputs[i]);
      std::memcpy(to + span.first * out_rows_[i],
                  host_out_->data() + at.offsets[i] + span.at * out_rows_[i],
                  span.rows * out_rows_[i]);
    }
  }
}

void Runner::copy(std::uint64_t to, std::uint64_t from, std::size_t bytes) {
  if (bytes > 0) ST_ON(*device_, cuMemcpyAsync, to, from, bytes, stream_->handle());
}

bool Runner::any_on(bool device) const {
  return std::any_of(spans_.begin(), spans_.end(),
                     [&](const Span& span) { return span.request->on_device == device; });
}

// After an error in mid-launch: what was enqueued may still read and write the requests' memory.
void Runner::settle() noexcept {
  device_->note(Entry::cuStreamSynchronize,
                device_->driver().cuStreamSynchronize(stream_->handle()));
}

}  // namespace st::cuda
