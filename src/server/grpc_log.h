// SPDX-License-Identifier: Apache-2.0
//
// What gRPC's core would write to standard error. Nearly all of it is what any client can do wrong, a way to fill a
// disk, and is dropped; what matters comes back to us as a status, but for two things:
//
// An assertion is told before it aborts the process.
//
// A TLS handshake that fails is counted and told. gRPC 1.51 has no other word for it: its C++ layer calls nobody, and
// of a connection it was handed (listener.h) shows only the end, which is that of every health check, too. The line
// that its core logs, one per handshake, is for people, so TlsTest holds the gRPC at hand to it. Not among them are
// handshakes whose client just goes or falls silent. Thread-safe.
#pragma once

#include <cstdint>

namespace beamline::server {

// For the whole process, before it uses gRPC. GRPC_VERBOSITY, where the operator sets it, still rules, and what it lets
// through is written; with NONE no handshake is counted.
void TakeGrpcLog();

// Since TakeGrpcLog; the process's as a client among them, if it is one.
uint64_t FailedTlsHandshakes();

}  // namespace beamline::server
