// SPDX-License-Identifier: Apache-2.0
//
// Who goes first where threads that answer the network and threads that compute share a processor: those that answer,
// which need it for microseconds and are waited for by somebody who may be refused.
//
// The kernel's fair scheduler lets a thread that wakes up interrupt one with a longer slice at once; between equals it
// waits for the slice's end, some 3 ms. Threads that answer ask for a short slice, threads that compute for a long one
// (Linux 6.12 and later; elsewhere it changes nothing). A burst of answers would still use up its fair share and wait,
// so in a process that answers, threads that compute take a fifth of a thread's weight: nothing is lost where the
// processor has nothing else to do. (Threads that feed a GPU are none of these: it waits for them.) At twice the
// capacity on one core that halves the P99 of refusals; at five times it makes 7 ms of 180 and keeps goodput, since who
// is refused at once does not pile up.
#pragma once

namespace beamline {

enum class ThreadRole { kAnswers, kComputes };

// Of the calling thread, and of those it starts from now on. One that computes does not come back to answering (the
// kernel takes weight only from who may not have it back). Threads of other policies than the fair ones keep theirs.
void TakeRole(ThreadRole role);

}  // namespace beamline
