// resources.h: SMs and work queues as they lie in a CUdevResource of the fake.
#pragma once

#include "fake/state.h"

namespace st::fake {

CUdevResource pack(const State& state, const Resource& resource);
CUresult unpack(const State& state, const CUdevResource& packed, Resource& resource);

// pieces: the sets of `size` SMs that a split of `sms` puts together, lowest first.
std::vector<SmSet> pieces(const DataSheet& sheet, const SmSet& sms, unsigned size,
                          bool coscheduled);

SmSet domain_of(const DataSheet& sheet, unsigned domain);  // its SMs; none: there is no such

}  // namespace st::fake
