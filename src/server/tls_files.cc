// SPDX-License-Identifier: Apache-2.0
#include "server/tls_files.h"

#include <cstdint>
#include <ctime>
#include <memory>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/stat.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"

namespace beamline::server {
namespace {

constexpr uint64_t kMaxBytes = 1 << 20;

template <auto kFree>
struct Deleter {
  void operator()(auto* object) const { kFree(object); }
};
using Bio = std::unique_ptr<BIO, Deleter<BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Deleter<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;
using Context = std::unique_ptr<SSL_CTX, Deleter<SSL_CTX_free>>;

Bio Memory(const std::string& pem) { return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()))); }

// Never asks at the terminal.
int NoPassphrase(char*, int, int, void*) { return 0; }

std::string Day(absl::Time time) { return absl::FormatTime("%Y-%m-%d %H:%M UTC", time, absl::UTCTimeZone()); }

absl::Time TimeOf(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return absl::InfinitePast();
  return absl::FromTimeT(timegm(&parts));
}

class Reader {
 public:
  Reader(const config::v1::Tls& tls, absl::Time now) : tls_(tls), now_(now) {}

  TlsReport Run() {
    Read("certificate", tls_.certificate(), &report_.files.certificate);
    Read("key", tls_.key(), &report_.files.key);
    if (!tls_.client_ca().empty()) Read("client_ca", tls_.client_ca(), &report_.files.client_ca);
    const Certificate own = Certificates("certificate", tls_.certificate(), report_.files.certificate);
    const Key key = PrivateKey();
    if (own != nullptr && key != nullptr && X509_check_private_key(own.get(), key.get()) != 1) {
      Problem("key", absl::StrCat(tls_.key(), " is not the key of the certificate in ", tls_.certificate()));
    }
    if (own != nullptr) CheckPeriod(own.get());
    if (own != nullptr && key != nullptr && report_.problems.empty()) CheckUse(own.get(), key.get());
    if (Certificates("client_ca", tls_.client_ca(), report_.files.client_ca) != nullptr) CheckClientCa();
    CheckPermissions();
    ERR_clear_error();
    return std::move(report_);
  }

 private:
  void Problem(const char* field, std::string text) { report_.problems.push_back({field, std::move(text)}); }
  void Warning(const char* field, std::string text) { report_.warnings.push_back({field, std::move(text)}); }

  void Read(const char* field, const std::string& path, std::string* out) {
    if (path.empty()) return Problem(field, "missing: give a file in PEM");
    absl::StatusOr<std::string> bytes = ReadFile(path, kMaxBytes);
    if (!bytes.ok()) return Problem(field, std::string(bytes.status().message()));
    if (bytes->empty()) return Problem(field, absl::StrCat(path, ": the file is empty"));
    *out = *std::move(bytes);
  }

  // The first certificate of `pem`, after all of them were parsed. Null, with a problem added, where one is bad; null
  // where the file could not be read.
  Certificate Certificates(const char* field, const std::string& path, const std::string& pem) {
    if (pem.empty()) return nullptr;
    const Bio bio = Memory(pem);
    Certificate first;
    int count = 0;
    for (;;) {
      ERR_clear_error();
      Certificate next(PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, nullptr));
      if (next == nullptr) break;
      if (++count == 1) first = std::move(next);
    }
    if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
      Problem(field, absl::StrCat(path, ": certificate ", count + 1, " is damaged"));
      return nullptr;
    }
    if (count == 0) Problem(field, absl::StrCat(path, ": no certificate in PEM (-----BEGIN CERTIFICATE-----)"));
    return first;
  }

  Key PrivateKey() {
    const std::string& pem = report_.files.key;
    if (pem.empty()) return nullptr;
    const Bio bio = Memory(pem);
    Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, nullptr));
    if (key != nullptr) return key;
    const bool encrypted = absl::StrContains(pem, "ENCRYPTED");
    Problem("key", absl::StrCat(tls_.key(), encrypted ? ": the key has a passphrase; store it without one"
                                                      : ": no private key in PEM (-----BEGIN PRIVATE KEY-----)"));
    return nullptr;
  }

  // gRPC says nothing of what OpenSSL does not take at the moment of use (keys that are too small, weak signatures): it
  // goes on with what it had, or answers nobody.
  void CheckUse(X509* own, EVP_PKEY* key) {
    ERR_clear_error();
    const Context context(SSL_CTX_new(TLS_method()));
    if (context == nullptr || SSL_CTX_use_certificate(context.get(), own) != 1) {
      return Refused("certificate", tls_.certificate());
    }
    if (!AddChain(report_.files.certificate, 1, context.get())) return Refused("certificate", tls_.certificate());
    if (SSL_CTX_use_PrivateKey(context.get(), key) != 1) Refused("key", tls_.key());
  }

  // OpenSSL asks of a client's chain what it asks of our own.
  void CheckClientCa() {
    ERR_clear_error();
    const Context context(SSL_CTX_new(TLS_method()));
    if (context == nullptr || !AddChain(report_.files.client_ca, 0, context.get())) {
      Refused("client_ca", tls_.client_ca());
    }
  }

  // All certificates of `pem` but the first `skip`; false, with OpenSSL's reason, where one is not taken.
  static bool AddChain(const std::string& pem, int skip, SSL_CTX* context) {
    const Bio chain = Memory(pem);
    for (int i = 0;; ++i) {
      const Certificate next(PEM_read_bio_X509(chain.get(), nullptr, NoPassphrase, nullptr));
      if (next == nullptr) break;
      if (i >= skip && SSL_CTX_add1_chain_cert(context, next.get()) != 1) return false;
    }
    ERR_clear_error();
    return true;
  }

  void Refused(const char* field, const std::string& file) {
    const char* reason = ERR_reason_error_string(ERR_peek_last_error());
    Problem(field, absl::StrCat(file, ": OpenSSL does not take it: ", reason != nullptr ? reason : "no reason given"));
  }

  void CheckPeriod(const X509* certificate) {
    const absl::Time begin = report_.files.begin = TimeOf(X509_get0_notBefore(certificate));
    const absl::Time end = report_.files.expiry = TimeOf(X509_get0_notAfter(certificate));
    if (now_ > end) {
      Warning("certificate", absl::StrCat(tls_.certificate(), " expired on ", Day(end), ": clients will refuse it"));
    } else if (now_ < begin) {
      Warning("certificate",
              absl::StrCat(tls_.certificate(), " is not valid before ", Day(begin), ": clients will refuse it"));
    }
  }

  void CheckPermissions() {
    struct stat info {};
    if (tls_.key().empty() || stat(tls_.key().c_str(), &info) != 0 || (info.st_mode & S_IROTH) == 0) return;
    Warning("key", absl::StrCat(tls_.key(), " can be read by every user of this machine (chmod o-r)"));
  }

  const config::v1::Tls& tls_;
  const absl::Time now_;
  TlsReport report_;
};

}  // namespace

absl::Status TlsReport::ToStatus() const {
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(problems, "\n", [](std::string* out, const Remark& problem) {
    absl::StrAppend(out, "tls.", problem.field, ": ", problem.text);
  }));
}

TlsReport ReadTlsFiles(const config::v1::Tls& tls, absl::Time now) { return Reader(tls, now).Run(); }

}  // namespace beamline::server
