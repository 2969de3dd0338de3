// rt_ring.cpp: rings, pool and table; every check runs without threads before it runs with them.
#undef NDEBUG
#include <algorithm>
#include <cassert>
#include <cstdio>
#include <numeric>
#include <thread>
#include <vector>

#include "rt/pool.h"
#include "rt/ring.h"
#include "rt/table.h"

namespace {

using namespace st::rt;

constexpr int kProducers = 4;
constexpr int kEach = 20'000;

template <typename Queue>
void fills_and_empties(std::size_t capacity) {
  Queue queue(capacity);
  int next_in = 0;
  int next_out = 0;
  for (int lap = 0; lap < 5; ++lap) {
    while (queue.try_push(next_in)) ++next_in;
    assert(next_in - next_out == static_cast<int>(capacity));
    // Leaves one behind on every lap but the last, so that laps start at different cells.
    const int keep = lap == 4 || capacity == 1 ? 0 : 1;
    for (int value = 0; next_in - next_out > keep; ++next_out) {
      assert(queue.try_pop(value));
      assert(value == next_out);
    }
  }
  int value = 0;
  assert(!queue.try_pop(value));
}

void capacity_is_rounded_up() {
  assert(Ring<int>(0).capacity() == 1 && Ring<int>(3).capacity() == 4);
  assert(SpscRing<int>(0).capacity() == 1 && SpscRing<int>(1000).capacity() == 1024);
}

void empty_says_what_pop_would_find() {
  Ring<int> ring(2);
  int value = 0;
  assert(ring.empty());
  assert(ring.try_push(1) && !ring.empty());
  assert(ring.try_pop(value) && ring.empty());
}

void many_producers_keep_their_order(std::size_t capacity) {
  struct Item {
    int producer = 0;
    int number = 0;
  };
  Ring<Item> ring(capacity);
  std::vector<std::thread> producers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&ring, p] {
      for (int i = 0; i < kEach; ++i) {
        while (!ring.try_push({p, i})) std::this_thread::yield();
      }
    });
  }
  std::vector<int> expected(kProducers);
  for (int left = kProducers * kEach; left > 0;) {
    Item item;
    if (!ring.try_pop(item)) {
      std::this_thread::yield();
      continue;
    }
    assert(item.number == expected[static_cast<std::size_t>(item.producer)]++);
    --left;
  }
  for (std::thread& producer : producers) producer.join();
  assert(ring.empty());
}

void one_producer_one_consumer(std::size_t capacity) {
  SpscRing<int> ring(capacity);
  std::thread producer([&ring] {
    for (int i = 0; i < kEach; ++i) {
      while (!ring.try_push(i)) std::this_thread::yield();
    }
  });
  for (int i = 0; i < kEach;) {
    int value = -1;
    assert(ring.size() <= ring.capacity());
    if (ring.try_pop(value)) {
      assert(value == i++);
    } else {
      std::this_thread::yield();
    }
  }
  producer.join();
}

void pool_gives_every_place_once() {
  Pool<int> pool(8);
  std::vector<std::uint32_t> taken;
  for (std::uint32_t place; (place = pool.take()) != Pool<int>::kEmpty;) taken.push_back(place);
  std::sort(taken.begin(), taken.end());
  std::vector<std::uint32_t> all(8);
  std::iota(all.begin(), all.end(), 0u);
  assert(taken == all && pool.empty());
  pool.give(5);
  assert(pool.take() == 5 && pool.take() == Pool<int>::kEmpty);
}

// Two threads on one place would race on its plain int: the sanitizer sees it.
void pool_places_have_one_owner() {
  Pool<int> pool(3);
  std::vector<std::thread> users;
  for (int u = 0; u < kProducers; ++u) {
    users.emplace_back([&pool] {
      for (int i = 0; i < kEach; ++i) {
        const std::uint32_t place = pool.take();
        if (place == Pool<int>::kEmpty) continue;
        ++pool[place];
        pool.give(place);
      }
    });
  }
  for (std::thread& user : users) user.join();
  int free = 0;
  while (pool.take() != Pool<int>::kEmpty) ++free;
  assert(free == 3);
}

void table_grows_under_readers() {
  Table<int, 1000> table;
  std::thread reader([&table] {
    for (std::uint32_t seen = 0; seen < 1000; seen = table.size()) {
      if (seen > 0) assert(table[seen - 1] == static_cast<int>(seen - 1));
      assert(table.find(1000) == nullptr);
    }
  });
  for (int i = 0; i < 1000; ++i) table.add(std::make_unique<int>(i));
  reader.join();
  bool refused = false;
  try {
    table.add(std::make_unique<int>(0));
  } catch (const std::length_error&) {
    refused = true;
  }
  assert(refused);
}

}  // namespace

int main() {
  for (const std::size_t capacity : {1u, 2u, 1024u}) {
    fills_and_empties<Ring<int>>(capacity);
    fills_and_empties<SpscRing<int>>(capacity);
  }
  capacity_is_rounded_up();
  empty_says_what_pop_would_find();
  pool_gives_every_place_once();
  for (const std::size_t capacity : {1u, 2u, 1024u}) {
    many_producers_keep_their_order(capacity);
    one_producer_one_consumer(capacity);
  }
  pool_places_have_one_owner();
  table_grows_under_readers();
  std::puts("rt_ring: ok");
}
