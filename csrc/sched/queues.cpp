#include "sched/queues.h"

#include <algorithm>

namespace st::sched {
namespace {

constexpr double kGapRate = 1.0 / 8;

}  // namespace

void Queues::add_lane() {
  LaneQueues& lane = lanes_.emplace_back();
  for (const auto& [family, solo] : queue_kinds_) {
    Queue& queue = lane.queues.emplace_back();
    queue.family = family;
    queue.solo = solo;
  }
  for (const QueueId queue : queue_of_) lane.cells.emplace_back().queue = queue;
}

void Queues::add_family(FamilyId family) {
  family_queue_.push_back(static_cast<QueueId>(queue_kinds_.size()));
  add_queue(family, kNone);
}

void Queues::add_queue(FamilyId family, TenantId solo) {
  queue_kinds_.emplace_back(family, solo);
  for (LaneQueues& lane : lanes_) {
    Queue& queue = lane.queues.emplace_back();
    queue.family = family;
    queue.solo = solo;
  }
}

void Queues::add_tenant(TenantId tenant) {
  const QueueId queue = family_queue_[facts_.tenant(tenant).family];
  solo_queue_.push_back(kNone);
  queue_of_.push_back(queue);
  waiting_.push_back(0);
  for (LaneQueues& lane : lanes_) lane.cells.emplace_back().queue = queue;
}

void Queues::solo(TenantId tenant) {
  if (solo_queue_[tenant] == kNone) {
    solo_queue_[tenant] = static_cast<QueueId>(queue_kinds_.size());
    add_queue(facts_.tenant(tenant).family, tenant);
  }
  queue_of_[tenant] = solo_queue_[tenant];
  for (LaneQueues& lane : lanes_) lane.cells[tenant].queue = queue_of_[tenant];
}

void Queues::fuse(TenantId tenant) {
  queue_of_[tenant] = family_queue_[facts_.tenant(tenant).family];
  for (LaneQueues& lane : lanes_) lane.cells[tenant].queue = queue_of_[tenant];
}

void Queues::set_slowdown(TenantId tenant, double slowdown) {
  const QueueId id = solo_queue_[tenant];
  for (LaneId lane = 0; lane < lanes_.size(); ++lane) {
    lanes_[lane].queues[id].slowdown = slowdown;
    recost(lanes_[lane], lanes_[lane].queues[id], lane);
  }
}

void Queues::set_cycle(LaneId lane, const std::vector<DutyTurn>& turns) {
  std::vector<Cell>& cells = lanes_[lane].cells;
  for (Cell& cell : cells) cell.in_cycle = false;
  for (const DutyTurn& turn : turns) cells[turn.tenant].in_cycle = true;
  for (TenantId tenant = 0; tenant < cells.size(); ++tenant) rekey(lane, tenant);
}

void Queues::put(const Request& request, LaneId lane) {
  Waiting waiting;
  waiting.id = request.id;
  waiting.arrival = request.arrival;
  waiting.deadline = request.deadline;
  waiting.seq = next_seq_++;
  waiting.tenant = request.tenant;
  waiting.samples = std::max(request.samples, 1u);
  waiting.level = level_of(request);
  note_gap(lane, waiting);
  put_back(waiting, lane);
}

void Queues::put_back(const Waiting& waiting, LaneId lane) {
  const std::uint32_t slot = slot_for(waiting);
  pool_[slot].lane = lane;
  link(slot);
}

std::uint32_t Queues::slot_for(const Waiting& waiting) {
  if (free_.empty()) {
    pool_.push_back(waiting);
    free_.reserve(pool_.capacity());
    return static_cast<std::uint32_t>(pool_.size() - 1);
  }
  const std::uint32_t slot = free_.back();
  free_.pop_back();
  pool_[slot] = waiting;
  return slot;
}

void Queues::link(std::uint32_t slot) {
  const Waiting& waiting = pool_[slot];
  LaneQueues& lane = lanes_[waiting.lane];
  Cell& cell = lane.cells[waiting.tenant];
  Queue& queue = lane.queues[cell.queue];
  ids_.insert(waiting.id, slot);
  if (waiting.deadline != kNever) {
    deadlines_.push(pool_, {waiting.deadline, waiting.seq}, slot);
  }
  if (TimeNs key = 0; watched(waiting, key)) queue.watch.push(pool_, key, slot);
  if (queue.count == 0) activate(lane, cell.queue);
  if (cell.requests.empty()) join(lane, cell);
  cell.requests.push(pool_, cell_urgency(waiting), slot);
  rekey(waiting.lane, waiting.tenant);
  count_change(waiting.lane, queue, waiting, 1);
}

Waiting Queues::take(std::uint32_t slot) {
  const Waiting waiting = pool_[slot];
  LaneQueues& lane = lanes_[waiting.lane];
  Cell& cell = lane.cells[waiting.tenant];
  Queue& queue = lane.queues[cell.queue];
  ids_.erase(waiting.id, slot);
  if (waiting.deadline_place != kNone) deadlines_.erase(pool_, slot);
  if (waiting.watch_place != kNone) queue.watch.erase(pool_, slot);
  cell.requests.erase(pool_, slot);
  rekey(waiting.lane, waiting.tenant);
  count_change(waiting.lane, queue, waiting, -1);
  if (queue.count == 0) retire(lane, cell.queue);
  free_.push_back(slot);
  Waiting out = waiting;
  out.cell_place = out.watch_place = out.deadline_place = kNone;
  return out;
}

void Queues::lift(TenantId tenant, std::vector<Waiting>& out) {
  for (LaneQueues& lane : lanes_) {
    const TenantId first = tenant == kNone ? 0 : tenant;
    const TenantId end = tenant == kNone ? facts_.tenants() : tenant + 1;
    for (TenantId t = first; t < end; ++t) {
      while (!lane.cells[t].requests.empty()) out.push_back(take(lane.cells[t].requests.top().id));
    }
  }
  std::sort(out.begin(), out.end(),
            [](const Waiting& a, const Waiting& b) { return a.seq < b.seq; });
}

std::uint32_t Queues::expired(TimeNs now) const {
  return next_deadline() <= now && !deadlines_.empty() ? deadlines_.top().id : kNone;
}

// A tenant that comes back from idling starts where the others are: idle time earns no credit.
void Queues::join(LaneQueues& lane, Cell& cell) {
  cell.pass = std::max(cell.pass, floor_pass(lane, lane.queues[cell.queue]));
}

double& Queues::floor_pass(LaneQueues& lane, Queue& queue) const {
  return facts_.policy().order == Order::kFair ? lane.pass : queue.pass;
}

void Queues::begin_turn(LaneId lane, QueueId queue) {
  LaneQueues& queues = lanes_[lane];
  Queue& chosen = queues.queues[queue];
  if (chosen.turns.empty()) return;
  double& floor = floor_pass(queues, chosen);
  floor = std::max(floor, chosen.turns.top().key.pass);
}

void Queues::charge(LaneId lane, TenantId tenant, double service) {
  lanes_[lane].cells[tenant].pass += service / facts_.tenant(tenant).weight;
  rekey(lane, tenant);
}

// rekey: brings the cell's entries in its queue up to date with its first request and its pass.
void Queues::rekey(LaneId lane, TenantId tenant) {
  std::vector<Cell>& cells = lanes_[lane].cells;
  Cell& cell = cells[tenant];
  Queue& queue = lanes_[lane].queues[cell.queue];
  if (cell.requests.empty() || cell.in_cycle) {
    if (cell.urgent_place != kNone) queue.urgent.erase(cells, tenant);
    if (cell.turn_place != kNone) queue.turns.erase(cells, tenant);
    return;
  }
  const Waiting& first = pool_[cell.requests.top().id];
  const Urgency urgency = queue_urgency(first);
  const Turn turn{urgency.rank, cell.pass};
  if (cell.urgent_place == kNone) {
    queue.urgent.push(cells, urgency, tenant);
    queue.turns.push(cells, turn, tenant);
  } else {
    queue.urgent.update(cells, urgency, tenant);
    queue.turns.update(cells, turn, tenant);
  }
}

Urgency Queues::cell_urgency(const Waiting& waiting) const {
  const bool dated = facts_.policy().order != Order::kFifo;
  return {-std::int64_t{waiting.level}, dated ? waiting.deadline : 0, waiting.seq};
}

Urgency Queues::queue_urgency(const Waiting& waiting) const {
  const Order order = facts_.policy().order;
  const bool dated = order == Order::kEdf || order == Order::kPriority;
  return {-std::int64_t{waiting.level}, dated ? waiting.deadline : 0, waiting.seq};
}

void Queues::began(LaneId lane_id, std::int32_t level, bool aged, TimeNs now) {
  LaneQueues& lane = lanes_[lane_id];
  if (aged || !lane.levels.below(level)) {
    lane.passed_since = kNever;
  } else if (lane.passed_since == kNever) {
    lane.passed_since = now;
  }
}

std::uint32_t Queues::oldest_below(LaneId lane_id, QueueId queue, std::int32_t level,
                                   TimeNs due) const {
  const LaneQueues& lane = lanes_[lane_id];
  std::uint32_t oldest = kNone;
  for (const auto& tenant : lane.queues[queue].urgent.entries()) {
    for (const auto& entry : lane.cells[tenant.id].requests.entries()) {
      if (pool_[entry.id].level >= level || pool_[entry.id].deadline <= due) continue;
      if (oldest == kNone || pool_[entry.id].seq < pool_[oldest].seq) oldest = entry.id;
    }
  }
  return oldest;
}

bool Queues::watched(const Waiting& waiting, TimeNs& key) const {
  const BatchRule rule = facts_.policy().batch;
  if (rule == BatchRule::kTimeout) key = waiting.arrival;
  if (rule == BatchRule::kSlack) key = waiting.deadline;
  return rule == BatchRule::kTimeout || (rule == BatchRule::kSlack && key != kNever);
}

void Queues::note_gap(LaneId lane, const Waiting& waiting) {
  Queue& queue = lanes_[lane].queues[queue_of_[waiting.tenant]];
  if (queue.last_arrival == kNever) {
    queue.last_arrival = waiting.arrival;
    return;
  }
  const TimeNs since = std::max<TimeNs>(waiting.arrival - queue.last_arrival, 0);
  const double gap = static_cast<double>(since) / waiting.samples;
  queue.gap_ns = queue.gap_ns < 0 ? gap : queue.gap_ns + kGapRate * (gap - queue.gap_ns);
  queue.last_arrival += since;
}

void Queues::count_change(LaneId lane_id, Queue& queue, const Waiting& waiting, int sign) {
  LaneQueues& lane = lanes_[lane_id];
  const auto by = static_cast<std::uint32_t>(sign);
  const std::uint32_t samples = by * waiting.samples;  // modulo arithmetic: plus or minus
  queue.count += by;
  queue.samples += samples;
  lane.cells[waiting.tenant].samples += samples;
  lane.count += by;
  if (sign > 0) {
    lane.levels.add(waiting.level, waiting.samples);
  } else {
    lane.levels.remove(waiting.level, waiting.samples);
  }
  waiting_[waiting.tenant] += by;
  count_ += static_cast<std::uint64_t>(static_cast<std::int64_t>(sign));
  if (facts_.policy().batch == BatchRule::kOne) {
    queue.single_ns += sign * facts_.base_ns(queue.family, lane_id, waiting.samples);
  }
  recost(lane, queue, lane_id);
}

void Queues::recost(LaneQueues& lane, Queue& queue, LaneId runner) {
  const TimeNs before = queue.work_ns;
  queue.work_ns = work_ns(queue, runner, queue.samples);
  lane.work_ns += queue.work_ns - before;
}

void Queues::activate(LaneQueues& lane, QueueId queue) {
  lane.queues[queue].active_place = static_cast<std::uint32_t>(lane.active.size());
  lane.active.push_back(queue);
}

void Queues::retire(LaneQueues& lane, QueueId queue) {
  const std::uint32_t place = lane.queues[queue].active_place;
  lane.active[place] = lane.active.back();
  lane.queues[lane.active[place]].active_place = place;
  lane.active.pop_back();
  lane.queues[queue].active_place = kNone;
}

}  // namespace st::sched
