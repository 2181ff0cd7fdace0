// SPDX-License-Identifier: Apache-2.0
//
// The files of TLS: read, checked, and described to whoever has to mend them. Pure but for reading the files.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "beamline/config/v1/server_config.pb.h"

namespace beamline::server {

struct TlsAuthority {
  absl::Time begin, expiry;
  std::string name;  // "CN=clients (SHA-256 4F:0A:...)", the fingerprint as `openssl x509 -fingerprint` prints it
  bool operator==(const TlsAuthority&) const = default;
};

struct TlsFiles {
  std::string certificate, key, client_ca;  // the files' bytes; client_ca is empty where none is configured
  // When the server's own certificate is valid.
  absl::Time begin = absl::InfinitePast(), expiry = absl::InfiniteFuture();
  std::vector<TlsAuthority> authorities;  // those of client_ca

  // The server's own and, where there are authorities, at least one of them.
  bool ValidAt(absl::Time time) const;
  // Whose clients are let in, for a line of the log: the first few by name, and how many more. Empty: anybody is.
  std::string DescribeAuthorities() const;
  bool operator==(const TlsFiles&) const = default;
};

struct TlsReport {
  struct Remark {
    std::string field;  // of config.v1.Tls
    std::string text;   // begins with the file, where there is one
  };
  TlsFiles files;                // to be used only where there is no problem
  std::vector<Remark> problems;  // unreadable, not PEM, key and certificate that do not belong together, ...
  std::vector<Remark> warnings;  // outside its period of validity (these first), a key that others can read, ...

  absl::Status ToStatus() const;  // INVALID_ARGUMENT with one "tls.FIELD: text" per problem
};

TlsReport ReadTlsFiles(const config::v1::Tls& tls, absl::Time now);

}  // namespace beamline::server
