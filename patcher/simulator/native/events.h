// Events of the one stream, behind torch.mps.Event and torch.Event.
#pragma once

#include <cstdint>

namespace simulator::events {

// A new event, by number, as torch's MPSEventPool (aten/src/ATen/mps/MPSEvent.mm) gives them out.
uint32_t acquire(bool timing);
void release(uint32_t id);
void record(uint32_t id);
// Throws for a number that is not in use.
void check(uint32_t id);
// Whether it was recorded: what was recorded has happened.
bool query(uint32_t id);
// Milliseconds from one to the other.
double elapsed(uint32_t start, uint32_t end);

}  // namespace simulator::events
