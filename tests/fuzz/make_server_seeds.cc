// SPDX-License-Identifier: Apache-2.0
//
// As make_seeds.cc, of what goes over the wire and configures the server:
//   beamline_fuzz_server_seeds FOLDER
#include <fstream>

#include "beamline/config/v1/server_config.pb.h"
#include "beamline/v1/catalogue.pb.h"
#include "beamline/v1/recommend.pb.h"
#include "fuzz/fuzz_target.h"
#include "google/protobuf/text_format.h"
#include "testing/paths.h"

namespace beamline::fuzz {
namespace {

namespace fs = std::filesystem;

void Write(const fs::path& path, const std::string& bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

v1::RecommendRequest FullRequest() {
  v1::RecommendRequest request;
  request.set_request_id("r-1");
  request.set_user_id("user 7");
  auto& attribute = *request.add_user_attributes();
  attribute.set_name("active_degree");
  attribute.set_value("full");
  for (int i = 0; i < 3; ++i) {
    auto& event = *request.add_history();
    event.set_item_id(1000 + i);
    event.set_timestamp_ms(1'650'000'000'000 + i);
    event.set_play_time_ms(9500);
    event.set_duration_ms(10'000);
    event.add_labels(v1::LABEL_CLICK);
    event.add_labels(v1::LABEL_LONG_VIEW);
  }
  request.set_top_k(20);
  request.set_items_per_sid(2);
  request.set_max_per_author(3);
  for (const uint32_t width : {16, 32, 64}) request.add_beam_widths(width);
  request.set_exclude_history(true);
  auto& clause = *request.mutable_eligibility()->add_rule();
  clause.set_key("region");
  clause.add_any_of("DE");
  clause.add_any_of("AT");
  for (const uint64_t item : {uint64_t{4}, ~uint64_t{0}}) request.mutable_eligibility()->add_deny_item_ids(item);
  request.mutable_eligibility()->mutable_allow()->add_item_ids(6);
  request.set_priority(v1::PRIORITY_SHEDDABLE);
  return request;
}

void MakeRequests(const fs::path& folder) {
  const v1::RecommendRequest full = FullRequest();
  Write(folder / "full", full.SerializeAsString());
  v1::RecommendRequest small;
  small.set_user_id("u");
  Write(folder / "small", small.SerializeAsString());
  Write(folder / "twice", full.SerializeAsString() + small.SerializeAsString());
  Write(folder / "unknown_field", small.SerializeAsString() + "\xa2\x06\x03xyz");
  v1::BatchRecommendRequest batch;
  *batch.add_requests() = full;
  *batch.add_requests() = small;
  Write(folder / "batch", batch.SerializeAsString());
  v1::ResolveRequest resolve;
  for (int i = 0; i < 2; ++i) {
    for (const uint32_t code : {3, 1, 0}) resolve.add_sids()->add_codes(code);
    for (const uint32_t code : {1, 0, 0}) resolve.mutable_sids(0)->add_codes(code);
  }
  resolve.set_max_items_per_sid(5);
  Write(folder / "resolve", resolve.SerializeAsString());
  v1::EncodeRequest encode;
  for (const uint64_t item : {1, 5, 99}) encode.add_item_ids(item);
  Write(folder / "encode", encode.SerializeAsString());
  Write(folder / "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
}

// Every field that a file of the product sets, every field there is, and a file with mistakes.
void MakeConfigs(const fs::path& folder) {
  for (const char* name : {"demo", "server"}) {
    std::ifstream stream(BEAMLINE_SOURCE_DIR + "/configs/" + name + ".textproto");
    Write(folder / name, {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()});
  }
  config::v1::ServerConfig all;
  const auto* reflection = all.GetReflection();
  for (int i = 0; i < all.GetDescriptor()->field_count(); ++i) {
    const auto* section = all.GetDescriptor()->field(i);
    if (section->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    google::protobuf::Message& part = *reflection->MutableMessage(&all, section);
    for (int j = 0; j < part.GetDescriptor()->field_count(); ++j) {
      const auto* field = part.GetDescriptor()->field(j);
      using google::protobuf::FieldDescriptor;
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_INT32) {
        part.GetReflection()->SetInt32(&part, field, field->default_value_int32());
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_INT64) {
        part.GetReflection()->SetInt64(&part, field, field->default_value_int64());
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL) {
        part.GetReflection()->SetBool(&part, field, field->default_value_bool());
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING && !field->default_value_string().empty()) {
        part.GetReflection()->SetString(&part, field, field->default_value_string());
      }
    }
  }
  std::string text;
  Require(google::protobuf::TextFormat::PrintToString(all, &text), "seed");
  Write(folder / "all", text);
  Write(folder / "mistakes",
        "listen { port: 99999 adress: 'x' } # a comment\nengine { threads: 0x10 dtype: \"fp{32\" score_rule: FULL }\n"
        "lifecycle { grace_ms: -1 }\nreflection: 2\n");
}

}  // namespace
}  // namespace beamline::fuzz

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  beamline::fuzz::MakeRequests(std::filesystem::path(argv[1]) / "request");
  beamline::fuzz::MakeConfigs(std::filesystem::path(argv[1]) / "config");
  return 0;
}
