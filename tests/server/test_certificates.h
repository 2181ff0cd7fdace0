// SPDX-License-Identifier: Apache-2.0
//
// Certificates made on the spot, for tests of TLS.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "base/file.h"
#include "gtest/gtest.h"

namespace beamline::server {

struct Issued {
  std::string certificate, key;  // PEM
};

// Signs certificates for anything.
class TestAuthority {
 public:
  explicit TestAuthority(const std::string& name, int64_t expires_in = 3600)
      : key_(EVP_EC_gen("P-256"), EVP_PKEY_free),
        certificate_(Make(name, expires_in, "CA:TRUE", "", key_.get()), X509_free) {}

  std::string certificate() const {
    return Pem([&](BIO* out) { PEM_write_bio_X509(out, certificate_.get()); });
  }

  // `expires_in` seconds; negative: it has expired. `names`: "IP:127.0.0.1", "DNS:example.com".
  Issued Issue(const std::string& name, const std::string& names = "IP:127.0.0.1", int64_t expires_in = 3600) const {
    return IssueFor(EVP_EC_gen("P-256"), name, names, expires_in);
  }
  // With a key that OpenSSL does not serve with.
  Issued IssueWeak(const std::string& name) const { return IssueFor(EVP_RSA_gen(1024), name, "IP:127.0.0.1", 3600); }

 private:
  Issued IssueFor(EVP_PKEY* made_for, const std::string& name, const std::string& names, int64_t expires_in) const {
    const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key(made_for, EVP_PKEY_free);
    const std::unique_ptr<X509, void (*)(X509*)> made(Make(name, expires_in, "CA:FALSE", names, key.get()), X509_free);
    return {Pem([&](BIO* out) { PEM_write_bio_X509(out, made.get()); }),
            Pem([&](BIO* out) { PEM_write_bio_PrivateKey(out, key.get(), nullptr, nullptr, 0, nullptr, nullptr); })};
  }

  template <typename Write>
  static std::string Pem(const Write& write) {
    BIO* const out = BIO_new(BIO_s_mem());
    write(out);
    char* bytes = nullptr;
    const long size = BIO_get_mem_data(out, &bytes);
    std::string pem(bytes, static_cast<size_t>(size));
    BIO_free(out);
    return pem;
  }

  static void Extend(X509* certificate, int kind, const std::string& value) {
    X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, nullptr, kind, value.c_str());
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }

  // An authority's own certificate, its key being `key_`, is made before certificate_ is there.
  X509* Make(const std::string& name, int64_t expires_in, const std::string& constraints, const std::string& names,
             EVP_PKEY* key) const {
    static int serial = 1;
    X509* const made = X509_new();
    X509_set_version(made, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(made), serial++);
    X509_gmtime_adj(X509_getm_notBefore(made), -7200);
    X509_gmtime_adj(X509_getm_notAfter(made), static_cast<long>(expires_in));
    X509_NAME* const subject = X509_get_subject_name(made);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name.c_str()), -1,
                               -1, 0);
    X509_set_issuer_name(made, key == key_.get() ? subject : X509_get_subject_name(certificate_.get()));
    X509_set_pubkey(made, key);
    Extend(made, NID_basic_constraints, constraints);
    if (!names.empty()) Extend(made, NID_subject_alt_name, names);
    EXPECT_GT(X509_sign(made, key_.get(), EVP_sha256()), 0);
    return made;
  }

  const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key_;
  const std::unique_ptr<X509, void (*)(X509*)> certificate_;
};

// A folder of files that a configuration names.
class TlsFolder {
 public:
  explicit TlsFolder(const std::string& name) : folder_(::testing::TempDir() + "/" + name) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  std::string Path(const std::string& file) const { return (folder_ / file).string(); }
  // Each file is replaced as a whole, one after the other.
  std::string Write(const std::string& file, const std::string& bytes) const {
    EXPECT_TRUE(WriteFileAtomically(folder_ / file, bytes).ok());
    std::filesystem::permissions(folder_ / file, std::filesystem::perms::owner_read);
    return Path(file);
  }
  void WritePair(const Issued& issued) const {
    Write("server.pem", issued.certificate);
    Write("server.key", issued.key);
  }

 private:
  const std::filesystem::path folder_;
};

}  // namespace beamline::server
