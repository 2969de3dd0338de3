#include "fake/engine.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace st::fake {

TaskRef Engine::add(Task task, std::span<const TaskRef> after, TimeNs submitted_ns) {
  auto added = std::make_shared<Task>(std::move(task));
  added->id_ = ++issued_;
  added->submitted_ns_ = submitted_ns;
  tasks_.emplace(added->id_, added);
  for (const TaskRef& earlier : after) {
    if (earlier == nullptr || earlier->done) continue;
    earlier->next_.push_back(added.get());
    ++added->before_;
  }
  if (added->before_ == 0) start(*added);
  return added;
}

TaskRef Engine::fence(TimeNs submitted_ns) {
  std::vector<TaskRef> all;
  for (const auto& [id, task] : tasks_) all.push_back(task);
  return add({}, all, submitted_ns);
}

void Engine::start(Task& task) {
  task.due_ns_ = std::max(now_ns_, task.submitted_ns_) + task.delay_ns;
  active_.push_back(&task);
}

std::optional<TimeNs> Engine::next() const {
  if (!hosts_.empty()) return now_ns_;
  const auto first = std::min_element(active_.begin(), active_.end(),
                                      [](Task* a, Task* b) { return a->due_ns_ < b->due_ns_; });
  if (first == active_.end()) return std::nullopt;
  return std::max((*first)->due_ns_, now_ns_);
}

TaskRef Engine::advance(TimeNs to) {
  while (!waiting_) {
    if (!hosts_.empty()) {
      Task* host = hosts_.front();
      hosts_.erase(hosts_.begin());
      waiting_ = true;
      return tasks_.at(host->id_);
    }
    const std::optional<TimeNs> when = next();
    if (!when || *when > to) {
      now_ns_ = std::max(now_ns_, to);
      break;
    }
    now_ns_ = *when;
    // In the order they started; what becomes ready by this is for the next round.
    std::vector<TaskRef> now_due;
    std::erase_if(active_, [&](Task* task) {
      const bool ends = task->due_ns_ <= now_ns_;
      if (ends) now_due.push_back(tasks_.at(task->id_));
      return ends;
    });
    for (const TaskRef& task : now_due) {
      if (!task->done) due(*task);  // a failure before it aborts it
    }
    if (stale_) share();
  }
  return nullptr;
}

void Engine::due(Task& task) {
  if (task.sms.any() && !task.working_) {
    task.working_ = true;
    active_.push_back(&task);
    stale_ = true;
  } else if (task.host) {
    hosts_.push_back(&task);
  } else {
    if (task.working_) stale_ = true;
    finish(task);
  }
}

void Engine::finish(Task& task) {
  const bool work = task.sms.any() || task.effect || task.host;
  int code = work ? poison_ : 0;
  if (code == 0 && task.effect) code = task.effect();
  if (code != 0) {
    if (failure_ == 0) failure_ = code;
    poison_ = 0;
    return abort();
  }
  task.done = true;
  task.done_ns = now_ns_;
  const TaskRef kept = tasks_.at(task.id_);  // the last owner may be this map
  tasks_.erase(task.id_);
  for (Task* next : task.next_) {
    if (--next->before_ == 0) start(*next);
  }
  task.next_.clear();
}

void Engine::ended(const TaskRef& host) {
  waiting_ = false;
  if (!host->done) finish(*host);
}

void Engine::abort() {
  Map ended;
  ended.swap(tasks_);
  active_.clear();
  hosts_.clear();
  stale_ = true;
  for (auto& [id, task] : ended) {
    task->done = true;
    task->done_ns = now_ns_;
    task->next_.clear();
  }
}

void Engine::share() {
  stale_ = false;
  std::vector<Task*> kernels;
  std::array<unsigned, SmSet{}.size()> users{};
  const auto elapsed = static_cast<double>(now_ns_ - shared_ns_);
  busy_sm_ns_ += busy_sms_ * (now_ns_ - shared_ns_);
  for (Task* task : active_) {
    if (!task->working_) continue;
    task->left_ -= task->rate_ * elapsed;
    kernels.push_back(task);
    for (std::size_t sm = 0; sm < task->sms.size(); ++sm) users[sm] += task->sms[sm];
  }
  busy_sms_ = std::count_if(users.begin(), users.end(), [](unsigned n) { return n != 0; });
  for (Task* task : kernels) {
    double sms = 0;
    for (std::size_t sm = 0; sm < task->sms.size(); ++sm) {
      if (task->sms[sm]) sms += 1.0 / users[sm];
    }
    const double computing_ns = task->flops / (sms * sheet_.flops_sm);
    const double memory_ns = task->bytes / std::min(sheet_.bandwidth, sms * sheet_.bandwidth_sm);
    task->rate_ = 1 / std::max({computing_ns, memory_ns, 1e-3});
  }
  if (interference_) share_bandwidth(kernels);
  for (Task* task : kernels) {
    // A thousandth of a ns is what rounding may add to an exact number of them.
    const double left_ns = std::max(0.0, task->left_) / task->rate_;
    task->due_ns_ = now_ns_ + static_cast<TimeNs>(std::min(std::ceil(left_ns - 1e-3), 1e17));
  }
  shared_ns_ = now_ns_;
}

// Max-min fair: who asks for less than an equal part of what is left gets all that it asks for.
void Engine::share_bandwidth(const std::vector<Task*>& kernels) {
  std::vector<Task*> by_demand = kernels;
  std::stable_sort(by_demand.begin(), by_demand.end(),
                   [](Task* a, Task* b) { return a->bytes * a->rate_ < b->bytes * b->rate_; });
  double free = sheet_.bandwidth;
  std::size_t others = by_demand.size();
  for (Task* task : by_demand) {
    const double part = free / static_cast<double>(others--);
    if (task->bytes * task->rate_ > part) task->rate_ = part / task->bytes;
    free -= task->bytes * task->rate_;
  }
}

}  // namespace st::fake
