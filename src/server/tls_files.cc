// SPDX-License-Identifier: Apache-2.0
#include "server/tls_files.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
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
using Chain = std::vector<Certificate>;
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

// Subject and fingerprint: two authorities of one name are told apart, as after a rotation.
std::string NameOf(const X509* certificate) {
  const Bio out(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(out.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
  char* subject = nullptr;
  const auto size = BIO_get_mem_data(out.get(), &subject);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int bytes = 0;
  X509_digest(certificate, EVP_sha256(), digest.data(), &bytes);
  return absl::StrCat(
      absl::string_view(subject, static_cast<size_t>(size)), " (SHA-256 ",
      absl::StrJoin(digest.begin(), digest.begin() + bytes, ":",
                    [](std::string* out_text, unsigned char byte) { absl::StrAppendFormat(out_text, "%02X", byte); }),
      ")");
}

// Lines that begin a certificate, or were meant to.
size_t CertificatesBegun(const std::string& pem) {
  size_t begun = 0;
  for (const absl::string_view line : absl::StrSplit(pem, '\n')) {
    begun += absl::StrContains(line, "BEGIN ") && absl::StrContains(line, "CERTIFICATE-") &&
                     !absl::StrContains(line, "REQUEST")
                 ? 1
                 : 0;
  }
  return begun;
}

class Reader {
 public:
  Reader(const config::v1::Tls& tls, absl::Time now) : tls_(tls), now_(now) {}

  TlsReport Run() {
    Read("certificate", tls_.certificate(), &report_.files.certificate);
    Read("key", tls_.key(), &report_.files.key);
    if (!tls_.client_ca().empty()) Read("client_ca", tls_.client_ca(), &report_.files.client_ca);
    const Chain own = Certificates("certificate", tls_.certificate(), report_.files.certificate);
    const Chain authorities = Certificates("client_ca", tls_.client_ca(), report_.files.client_ca);
    const Key key = PrivateKey();
    if (!own.empty() && key != nullptr && X509_check_private_key(own[0].get(), key.get()) != 1) {
      Problem("key", absl::StrCat(tls_.key(), " is not the key of the certificate in ", tls_.certificate()));
    }
    CheckPeriods(own, authorities);
    if (!own.empty() && key != nullptr && report_.problems.empty()) CheckUse(own, key.get());
    if (!authorities.empty()) CheckAuthorities(authorities);
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

  // All certificates of `pem`. None, with a problem added, where one is bad; none where the file could not be read.
  Chain Certificates(const char* field, const std::string& path, const std::string& pem) {
    if (pem.empty()) return {};
    const Bio bio = Memory(pem);
    Chain all;
    for (;;) {
      ERR_clear_error();
      Certificate next(PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, nullptr));
      if (next == nullptr) break;
      all.push_back(std::move(next));
    }
    const bool damaged = ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE;
    const size_t begun = CertificatesBegun(pem);
    if (damaged) {
      Problem(field, absl::StrCat(path, ": certificate ", all.size() + 1, " is damaged"));
    } else if (all.empty() && begun == 0) {
      Problem(field, absl::StrCat(path, ": no certificate in PEM (-----BEGIN CERTIFICATE-----)"));
    } else if (all.size() != begun) {  // OpenSSL passes over what begins or ends with a damaged line
      Problem(field, absl::StrCat(path, ": ", begun, " certificates begin, but ", all.size(), " can be read"));
    } else {
      return all;
    }
    return {};
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
  void CheckUse(const Chain& own, EVP_PKEY* key) {
    ERR_clear_error();
    const Context context(SSL_CTX_new(TLS_method()));
    if (context == nullptr || SSL_CTX_use_certificate(context.get(), own[0].get()) != 1) {
      return Refused("certificate", tls_.certificate());
    }
    for (size_t i = 1; i < own.size(); ++i) {
      if (SSL_CTX_add1_chain_cert(context.get(), own[i].get()) != 1) return Refused("certificate", tls_.certificate());
    }
    if (SSL_CTX_use_PrivateKey(context.get(), key) != 1) Refused("key", tls_.key());
  }

  // OpenSSL asks of a client's chain what it asks of our own.
  void CheckAuthorities(const Chain& authorities) {
    ERR_clear_error();
    const Context context(SSL_CTX_new(TLS_method()));
    for (size_t i = 0; i < authorities.size(); ++i) {
      if (context == nullptr || SSL_CTX_add1_chain_cert(context.get(), authorities[i].get()) != 1) {
        return Refused("client_ca", absl::StrCat(tls_.client_ca(), ": certificate ", i + 1));
      }
      if (X509_check_ca(authorities[i].get()) == 0) {
        Warning("client_ca", absl::StrCat(tls_.client_ca(), ": certificate ", i + 1,
                                          " is no authority's (CA:FALSE): it admits no client"));
      }
    }
  }

  void Refused(const char* field, const std::string& what) {
    const char* reason = ERR_reason_error_string(ERR_peek_last_error());
    Problem(field, absl::StrCat(what, ": OpenSSL does not take it: ", reason != nullptr ? reason : "no reason given"));
  }

  void CheckPeriods(const Chain& own, const Chain& authorities) {
    const auto check = [this](const char* field, const std::string& what, const X509* certificate,
                              const char* follows) {
      const absl::Time begin = TimeOf(X509_get0_notBefore(certificate)), end = TimeOf(X509_get0_notAfter(certificate));
      if (now_ > end) Warning(field, absl::StrCat(what, " expired on ", Day(end), ": ", follows));
      if (now_ < begin) Warning(field, absl::StrCat(what, " is not valid before ", Day(begin), ": ", follows));
      return std::pair(begin, end);
    };
    if (!own.empty()) {
      std::tie(report_.files.begin, report_.files.expiry) =
          check("certificate", tls_.certificate(), own[0].get(), "clients will refuse it");
    }
    for (size_t i = 0; i < authorities.size(); ++i) {
      const auto [begin, end] = check("client_ca", absl::StrCat(tls_.client_ca(), ": certificate ", i + 1),
                                      authorities[i].get(), "its clients are refused");
      report_.files.authorities.push_back({begin, end, NameOf(authorities[i].get())});
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

bool TlsFiles::ValidAt(absl::Time time) const {
  const auto valid = [&](const auto& whose) { return whose.begin <= time && time <= whose.expiry; };
  return valid(*this) && (authorities.empty() || std::any_of(authorities.begin(), authorities.end(), valid));
}

std::string TlsFiles::DescribeAuthorities() const {
  constexpr size_t kTold = 4;
  const size_t told = std::min(kTold, authorities.size());
  std::string text = absl::StrJoin(authorities.begin(), authorities.begin() + static_cast<std::ptrdiff_t>(told), ", ",
                                   [](std::string* out, const TlsAuthority& one) { out->append(one.name); });
  if (authorities.size() > told) absl::StrAppend(&text, " and ", authorities.size() - told, " more");
  return text;
}

absl::Status TlsReport::ToStatus() const {
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(problems, "\n", [](std::string* out, const Remark& problem) {
    absl::StrAppend(out, "tls.", problem.field, ": ", problem.text);
  }));
}

TlsReport ReadTlsFiles(const config::v1::Tls& tls, absl::Time now) { return Reader(tls, now).Run(); }

}  // namespace beamline::server
