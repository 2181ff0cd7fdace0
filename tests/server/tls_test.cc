// SPDX-License-Identifier: Apache-2.0
//
// TLS and mutual TLS over a real server with certificates made here: who is let in, what is said of bad files, and
// certificates that change beneath a running server.
#include <atomic>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <openssl/pem.h>
#include <openssl/ssl.h>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config.h"
#include "server/grpc_log.h"
#include "server/loopback.h"
#include "server/raw_connection.h"
#include "server/test_certificates.h"
#include "server/tls_files.h"
#include "spdlog/sinks/ostream_sink.h"

namespace beamline::server {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

class TlsTest : public LoopbackTest {
 protected:
  void SetUp() override {
    folder_.WritePair(authority_.Issue("server"));
    folder_.Write("clients.pem", client_authority_.certificate());
  }

  config::v1::ServerConfig Config(bool mutual) const {
    config::v1::ServerConfig config = LoopbackConfig();
    config.mutable_tls()->set_certificate(folder_.Path("server.pem"));
    config.mutable_tls()->set_key(folder_.Path("server.key"));
    if (mutual) config.mutable_tls()->set_client_ca(folder_.Path("clients.pem"));
    config.mutable_tls()->set_poll_ms(10);
    return config;
  }

  std::unique_ptr<v1::ModelService::Stub> Client(const std::string& ca, const Issued& own = {}) const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return v1::ModelService::NewStub(
        grpc::CreateCustomChannel(server_->address(), grpc::SslCredentials({ca, own.key, own.certificate}), arguments));
  }

  // Over a connection of its own.
  grpc::StatusCode Call(const std::string& ca, const Issued& own = {}) const { return Call(*Client(ca, own)); }
  static grpc::StatusCode Call(v1::ModelService::Stub& client) {
    grpc::ClientContext context;
    SetTimeout(context);
    v1::GetStatusResponse response;
    return client.GetStatus(&context, {}, &response).error_code();
  }

  const TestAuthority authority_{"authority"}, client_authority_{"client authority"}, foreign_{"foreign"};
  const TlsFolder folder_{"tls"};
};

TEST_F(TlsTest, ServesThoseWhoKnowItsAuthority) {
  Start(Config(false));
  EXPECT_EQ(Call(authority_.certificate()), grpc::StatusCode::OK);
  EXPECT_EQ(Call(foreign_.certificate()), grpc::StatusCode::UNAVAILABLE);
  v1::RecommendResponse response;
  EXPECT_EQ(Recommend(ValidRequest(), &response).error_code(), grpc::StatusCode::UNAVAILABLE) << "plaintext";
}

TEST_F(TlsTest, ACertificateOfAnotherNameIsNotOurs) {
  folder_.WritePair(authority_.Issue("server", "DNS:example.com"));
  Start(Config(false));
  EXPECT_EQ(Call(authority_.certificate()), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(TlsTest, MutualTlsRefusesWhoeverCannotShowACertificate) {
  Start(Config(true));
  const std::string ca = authority_.certificate();
  EXPECT_EQ(Call(ca, client_authority_.Issue("client")), grpc::StatusCode::OK);
  EXPECT_EQ(Call(ca), grpc::StatusCode::UNAVAILABLE) << "none";
  EXPECT_EQ(Call(ca, foreign_.Issue("client")), grpc::StatusCode::UNAVAILABLE) << "of a foreign authority";
  EXPECT_EQ(Call(ca, client_authority_.Issue("client", "", -60)), grpc::StatusCode::UNAVAILABLE) << "expired";
  EXPECT_EQ(Call(ca, client_authority_.Issue("client")), grpc::StatusCode::OK) << "after the others";
}

// The first byte of a record of TLS is its kind: 21 is an alert, 22 goes on with the handshake.
int FirstAnswerByte(const std::string& address, int version) {
  const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  SSL_CTX_set_security_level(context.get(), 0);
  SSL_CTX_set_cipher_list(context.get(), "ALL:@SECLEVEL=0");
  SSL_CTX_set_min_proto_version(context.get(), version);
  SSL_CTX_set_max_proto_version(context.get(), version);
  BIO* const connection = BIO_new_connect(address.c_str());
  const std::unique_ptr<SSL, void (*)(SSL*)> ssl(SSL_new(context.get()), SSL_free);
  EXPECT_EQ(BIO_do_connect(connection), 1);
  BIO* const hello = BIO_new(BIO_s_mem());
  BIO* const nothing = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl.get(), nothing, hello);
  SSL_connect(ssl.get());  // writes its hello, and would like an answer
  char* bytes = nullptr;
  const auto size = BIO_get_mem_data(hello, &bytes);
  EXPECT_GT(size, 0) << "this OpenSSL does not speak the version";
  BIO_write(connection, bytes, static_cast<int>(size));
  unsigned char first = 0;
  const int read = BIO_read(connection, &first, 1);
  BIO_free_all(connection);
  return read == 1 ? first : -1;
}

TEST_F(TlsTest, OldVersionsOfTheProtocolAreRefused) {
  Start(Config(false));
  EXPECT_EQ(FirstAnswerByte(server_->address(), TLS1_2_VERSION), 22);
  EXPECT_EQ(FirstAnswerByte(server_->address(), TLS1_1_VERSION), -1) << "gRPC closes without an alert";
  EXPECT_EQ(FirstAnswerByte(server_->address(), TLS1_VERSION), -1);
}

TEST_F(TlsTest, CertificatesChangeUnderLoadAndNobodyNotices) {
  Start(Config(true));
  const Issued client = client_authority_.Issue("client");
  std::atomic<bool> stop{false};
  std::atomic<int> calls{0}, failed{0};
  std::vector<std::thread> callers;
  callers.reserve(2);
  for (int i = 0; i < 2; ++i) {
    callers.emplace_back([&, i] {
      const auto kept = Client(authority_.certificate(), client);
      while (!stop.load()) {
        ++calls;  // one caller keeps its connection, the other makes a new one for every call
        if ((i == 0 ? Call(*kept) : Call(authority_.certificate(), client)) != grpc::StatusCode::OK) ++failed;
      }
    });
  }
  for (int i = 1; i <= 10; ++i) {
    const int before = calls.load();
    folder_.WritePair(authority_.Issue(absl::StrCat("server ", i)));
    ASSERT_TRUE(Eventually([&] {
      return server_->RenderMetrics(true).find(absl::StrCat("beamline_tls_reloads_total{result=\"taken\"} ", i)) !=
             std::string::npos;
    })) << i;
    ASSERT_TRUE(Eventually([&] { return calls.load() >= before + 2; }));
  }
  stop.store(true);
  for (std::thread& caller : callers) caller.join();
  EXPECT_GE(calls.load(), 20);
  EXPECT_EQ(failed.load(), 0) << "of " << calls.load();
}

TEST_F(TlsTest, NewConnectionsGetTheNewCertificateAndTheNewAuthorities) {
  Start(Config(true));
  const auto kept = Client(authority_.certificate(), client_authority_.Issue("client"));
  ASSERT_EQ(Call(*kept), grpc::StatusCode::OK);
  folder_.WritePair(foreign_.Issue("server"));
  folder_.Write("clients.pem", foreign_.certificate());
  EXPECT_TRUE(
      Eventually([&] { return Call(foreign_.certificate(), foreign_.Issue("client")) == grpc::StatusCode::OK; }));
  EXPECT_EQ(Call(foreign_.certificate(), client_authority_.Issue("client")), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Call(authority_.certificate(), foreign_.Issue("client")), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Call(*kept), grpc::StatusCode::OK) << "a connection made before";
}

TEST_F(TlsTest, ABadChangeIsRefusedAndTheOldCertificateStays) {
  Start(Config(false));
  const auto refused = [&](int count) {
    return Eventually([&] {
      return server_->RenderMetrics(true).find(
                 absl::StrCat("beamline_tls_reloads_total{result=\"refused\"} ", count)) != std::string::npos;
    });
  };
  folder_.Write("server.key", authority_.Issue("another").key);
  EXPECT_TRUE(refused(1)) << "a key of another certificate";
  EXPECT_EQ(Call(authority_.certificate()), grpc::StatusCode::OK);
  folder_.Write("server.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
  EXPECT_TRUE(refused(2)) << "no certificate";
  EXPECT_EQ(Call(authority_.certificate()), grpc::StatusCode::OK);
  std::filesystem::remove(folder_.Path("server.pem"));
  EXPECT_TRUE(refused(3)) << "gone";
  EXPECT_EQ(Call(authority_.certificate()), grpc::StatusCode::OK);
  const Issued weak = authority_.IssueWeak("server");
  folder_.Write("server.pem", weak.certificate);
  EXPECT_TRUE(refused(4)) << "the key is still another's";
  folder_.Write("server.key", weak.key);
  EXPECT_TRUE(refused(5)) << "a key too small";
  EXPECT_EQ(Call(authority_.certificate()), grpc::StatusCode::OK);
  folder_.WritePair(authority_.Issue("server", "IP:127.0.0.1", -60));
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(Call(authority_.certificate()), grpc::StatusCode::OK) << "expired, while the one in use is not";
    absl::SleepFor(absl::Milliseconds(10));
  }
  folder_.WritePair(foreign_.Issue("server"));
  EXPECT_TRUE(Eventually([&] { return Call(foreign_.certificate()) == grpc::StatusCode::OK; })) << "mended";
}

TEST_F(TlsTest, AuthoritiesThatExpiredDoNotReplaceValidOnes) {
  Start(Config(true));
  const TestAuthority expired("expired", -60);
  const Issued client = client_authority_.Issue("client");
  const auto refused = [&](int count) {
    return Eventually([&] {
      return absl::StrContains(server_->RenderMetrics(true),
                               absl::StrCat("beamline_tls_reloads_total{result=\"refused\"} ", count));
    });
  };
  folder_.Write("clients.pem", expired.certificate());
  EXPECT_TRUE(refused(1));
  EXPECT_EQ(Call(authority_.certificate(), client), grpc::StatusCode::OK);
  folder_.Write("clients.pem", expired.certificate() + foreign_.certificate());  // one of them is enough
  EXPECT_TRUE(
      Eventually([&] { return Call(authority_.certificate(), foreign_.Issue("client")) == grpc::StatusCode::OK; }));
}

// A handshake with the server, to its end or to the server's no.
void Handshake(const std::string& address, const Issued& own) {
  const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  if (!own.key.empty()) {
    BIO* const pem = BIO_new_mem_buf(own.certificate.data(), static_cast<int>(own.certificate.size()));
    BIO* const key_pem = BIO_new_mem_buf(own.key.data(), static_cast<int>(own.key.size()));
    const std::unique_ptr<X509, void (*)(X509*)> certificate(PEM_read_bio_X509(pem, nullptr, nullptr, nullptr),
                                                             X509_free);
    const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key(
        PEM_read_bio_PrivateKey(key_pem, nullptr, nullptr, nullptr), EVP_PKEY_free);
    EXPECT_EQ(SSL_CTX_use_certificate(context.get(), certificate.get()), 1);
    EXPECT_EQ(SSL_CTX_use_PrivateKey(context.get(), key.get()), 1);
    BIO_free(pem);
    BIO_free(key_pem);
  }
  BIO* const connection = BIO_new_connect(address.c_str());
  EXPECT_EQ(BIO_do_connect(connection), 1);
  const std::unique_ptr<SSL, void (*)(SSL*)> ssl(SSL_new(context.get()), SSL_free);
  const unsigned char h2[] = {2, 'h', '2'};
  SSL_set_alpn_protos(ssl.get(), h2, sizeof(h2));
  SSL_set_bio(ssl.get(), connection, connection);
  char byte = 0;
  if (SSL_connect(ssl.get()) == 1) SSL_read(ssl.get(), &byte, 1);  // in TLS 1.3 the server says no afterwards
}

// Of a rotation that locks clients out nothing else tells. The clients here are not gRPC's, which would be counted,
// too.
TEST_F(TlsTest, HandshakesThatFailAreCountedAndTold) {
  TakeGrpcLog();
  std::ostringstream log;
  Log().sinks().push_back(std::make_shared<spdlog::sinks::ostream_sink_mt>(log, true));
  const absl::Cleanup no_more = [] { Log().sinks().pop_back(); };
  Start(Config(true));
  const uint64_t before = FailedTlsHandshakes();
  const auto failed = [&](uint64_t count) {
    return Eventually([&] { return FailedTlsHandshakes() == before + count; });
  };
  Handshake(server_->address(), foreign_.Issue("client"));
  EXPECT_TRUE(failed(1)) << "of a foreign authority";
  Handshake(server_->address(), {});
  EXPECT_TRUE(failed(2)) << "no certificate";
  {
    RawConnection plaintext(server_->port());
    plaintext.Send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    EXPECT_TRUE(plaintext.ClosedWithin(absl::Seconds(10)));
  }
  EXPECT_TRUE(failed(3)) << "no TLS";
  { const RawConnection health_check(server_->port()); }
  Handshake(server_->address(), client_authority_.Issue("client"));
  EXPECT_EQ(Call(authority_.certificate(), client_authority_.Issue("client")), grpc::StatusCode::OK);
  EXPECT_TRUE(failed(3)) << "one that goes, and good ones";
  EXPECT_THAT(server_->RenderMetrics(true),
              HasSubstr(absl::StrCat("beamline_tls_failed_handshakes_total ", before + 3)));
  EXPECT_THAT(log.str(), AllOf(HasSubstr("TLS handshake failed: error=\"SSL_ERROR_SSL: "),
                               HasSubstr("certificate verify failed"), HasSubstr("peer did not return a certificate")));
}

TEST_F(TlsTest, TheLogNamesWhoseClientsAreLetIn) {
  std::ostringstream log;
  Log().sinks().push_back(std::make_shared<spdlog::sinks::ostream_sink_mt>(log, true));
  const absl::Cleanup no_more = [] { Log().sinks().pop_back(); };
  Start(Config(true));
  EXPECT_THAT(log.str(), ContainsRegex("TLS files in use: .*CN=client authority [(]SHA-256 ([0-9A-F]{2}:){31}"));
  folder_.Write("clients.pem", foreign_.certificate());
  EXPECT_TRUE(Eventually([&] {
    return absl::StrContains(server_->RenderMetrics(true), "beamline_tls_reloads_total{result=\"taken\"} 1");
  }));
  server_.reset();  // no line is being written any more
  EXPECT_THAT(log.str(), ContainsRegex("TLS files taken over: .*CN=foreign [(]SHA-256 ([0-9A-F]{2}:){31}"));
}

TEST_F(TlsTest, ManyAuthoritiesAreALineStill) {
  std::string many;
  for (int i = 1; i <= 6; ++i) many += TestAuthority(absl::StrCat("number ", i)).certificate();
  folder_.Write("clients.pem", many);
  const TlsFiles files = ReadTlsFiles(Config(true).tls(), absl::Now()).files;
  EXPECT_THAT(files.DescribeAuthorities(), AllOf(StartsWith("CN=number 1 (SHA-256 "),
                                                 HasSubstr(", CN=number 4 (SHA-256 "), EndsWith(") and 2 more")));
  EXPECT_EQ(ReadTlsFiles(Config(false).tls(), absl::Now()).files.DescribeAuthorities(), "");
}

TEST_F(TlsTest, WhatOperatorsSeeOfIt) {
  Start(Config(false));
  const std::string metrics = server_->RenderMetrics(true);
  const std::string name = "\nbeamline_tls_certificate_expiry_timestamp_seconds ";
  const size_t at = metrics.find(name);
  ASSERT_NE(at, std::string::npos) << metrics;
  EXPECT_NEAR(std::stod(metrics.substr(at + name.size())), absl::ToUnixSeconds(absl::Now()) + 3600, 60);
}

TEST_F(TlsTest, StartNamesTheFileThatIsWrong) {
  folder_.Write("server.key", authority_.Issue("another").key);
  const auto server = StartServer(Config(false), &engine_, &clock_);
  ASSERT_FALSE(server.ok());
  EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(server.status().message()),
              AllOf(StartsWith("tls.key: "), HasSubstr(folder_.Path("server.key")), HasSubstr("is not the key of")));
}

struct BadFiles {
  const char* certificate;  // a file of the folder, or "" for none
  const char* key;
  const char* client_ca;
  const char* problem;  // field, then file
  const char* mention;
};

TEST_F(TlsTest, EveryProblemNamesFieldAndFile) {
  const Issued server = authority_.Issue("server");
  folder_.Write("other.key", authority_.Issue("other").key);
  folder_.Write("empty", "");
  folder_.Write("text", "no PEM at all\n");
  folder_.Write("two.pem", authority_.certificate() + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
  const Issued weak = authority_.IssueWeak("weak");
  folder_.Write("weak.pem", weak.certificate);
  folder_.Write("weak.key", weak.key);
  folder_.Write("weak_chain.pem", server.certificate + weak.certificate);
  folder_.Write("chain.key", server.key);
  const std::string ca = authority_.certificate(), end = "-----END CERTIFICATE-----\n";
  folder_.Write("no_end.pem", ca.substr(0, ca.size() - end.size()) + foreign_.certificate() + ca);
  folder_.Write("begin.pem", absl::StrReplaceAll(ca, {{"BEGIN CERTIFICATE-----", "BEGIN CERTIFICATE----"}}) + ca);
  folder_.Write("locked.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
  const BadFiles cases[] = {
      {"", "server.key", "", "tls.certificate: missing", "PEM"},
      {"server.pem", "", "", "tls.key: missing", "PEM"},
      {"nowhere", "server.key", "", "tls.certificate: ", "nowhere"},
      {"server.pem", "nowhere", "", "tls.key: ", "nowhere"},
      {"server.pem", "server.key", "nowhere", "tls.client_ca: ", "nowhere"},
      {".", "server.key", "", "tls.certificate: ", "not a regular file"},
      {"empty", "server.key", "", "tls.certificate: ", "empty"},
      {"text", "server.key", "", "tls.certificate: ", "no certificate in PEM"},
      {"server.key", "server.key", "", "tls.certificate: ", "no certificate in PEM"},
      {"two.pem", "server.key", "", "tls.certificate: ", "certificate 2 is damaged"},
      {"server.pem", "text", "", "tls.key: ", "no private key in PEM"},
      {"server.pem", "server.pem", "", "tls.key: ", "no private key in PEM"},
      {"server.pem", "locked.key", "", "tls.key: ", "has a passphrase"},
      {"server.pem", "other.key", "", "tls.key: ", "is not the key of the certificate"},
      {"weak.pem", "weak.key", "", "tls.certificate: ", "weak.pem: OpenSSL does not take it: ee key too small"},
      {"weak_chain.pem", "chain.key", "", "tls.certificate: ", "OpenSSL does not take it: ca key too small"},
      {"server.pem", "server.key", "text", "tls.client_ca: ", "no certificate in PEM"},
      {"server.pem", "server.key", "weak.pem",
       "tls.client_ca: ", "weak.pem: certificate 1: OpenSSL does not take it: ca key too small"},
      {"server.pem", "server.key", "no_end.pem", "tls.client_ca: ", "3 certificates begin, but"},
      {"server.pem", "server.key", "begin.pem", "tls.client_ca: ", "2 certificates begin, but 1 can be read"},
  };
  for (const BadFiles& bad : cases) {
    const auto path = [&](const char* file) { return *file == '\0' ? "" : folder_.Path(file); };
    const auto config = ParseServerConfig(
        absl::StrCat("engine { bundle: '.' }\ntls {\n  certificate: '", path(bad.certificate), "'\n  key: '",
                     path(bad.key), "'\n  client_ca: '", path(bad.client_ca), "'\n}\n"),
        "c", {});
    ASSERT_FALSE(config.ok()) << bad.problem << bad.mention;
    const std::vector<std::string> lines = absl::StrSplit(config.status().message(), '\n');
    ASSERT_EQ(lines.size(), 1u) << config.status();
    EXPECT_THAT(lines[0], AllOf(StartsWith("c:"), HasSubstr(bad.problem), HasSubstr(bad.mention)));
  }
}

TEST_F(TlsTest, WarnsOfPeriodsAndOfKeysThatOthersCanRead) {
  config::v1::Tls tls = Config(false).tls();
  EXPECT_THAT(ReadTlsFiles(tls, absl::Now()).warnings, IsEmpty());
  const auto texts = [](const TlsReport& report) {
    EXPECT_TRUE(report.ToStatus().ok()) << report.ToStatus();
    std::vector<std::string> all;
    all.reserve(report.warnings.size());
    for (const auto& [field, text] : report.warnings) all.push_back(absl::StrCat(field, ": ", text));
    return all;
  };
  EXPECT_THAT(texts(ReadTlsFiles(tls, absl::Now() - absl::Hours(3))),
              ElementsAre(AllOf(StartsWith("certificate: "), HasSubstr("is not valid before"))));
  folder_.WritePair(authority_.Issue("server", "IP:127.0.0.1", -60));
  std::filesystem::permissions(tls.key(), std::filesystem::perms::others_read, std::filesystem::perm_options::add);
  EXPECT_THAT(texts(ReadTlsFiles(tls, absl::Now())),
              ElementsAre(AllOf(StartsWith("certificate: "), HasSubstr("server.pem expired on 20")),
                          AllOf(StartsWith("key: "), HasSubstr("chmod o-r"))));
  const config::v1::Tls mutual = Config(true).tls();
  folder_.WritePair(authority_.Issue("server"));
  folder_.Write("clients.pem", foreign_.certificate() + TestAuthority("expired", -60).certificate() +
                                   authority_.Issue("leaf").certificate);
  EXPECT_THAT(texts(ReadTlsFiles(mutual, absl::Now())),
              ElementsAre(HasSubstr("clients.pem: certificate 2 expired on 20"),
                          HasSubstr("clients.pem: certificate 3 is no authority's (CA:FALSE)")));
  folder_.WritePair(authority_.Issue("server", "IP:127.0.0.1", -60));
  Start(Config(false));  // a client whose clock is wrong, or who does not care, may still be served
  EXPECT_EQ(Call(authority_.certificate()), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace beamline::server
