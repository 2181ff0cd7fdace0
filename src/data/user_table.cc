// SPDX-License-Identifier: Apache-2.0
#include "data/user_table.h"

#include "absl/strings/str_cat.h"
#include "beamline/status.h"
#include "data/parse.h"

namespace beamline::data {

absl::StatusOr<UserTableReader> UserTableReader::Open(const std::filesystem::path& path, const BadRowPolicy& policy,
                                                      Progress* progress) {
  BEAMLINE_ASSIGN_OR_RETURN(DelimitedReader reader, DelimitedReader::OpenTsv(path, {"user_id"}, policy, progress));
  if (reader.header().size() > kMaxUserAttributes + 1) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ":1: ", reader.header().size() - 1,
                                                   " attribute columns, more than the limit of ", kMaxUserAttributes));
  }
  for (const std::string& name : reader.header()) {
    if (name.empty()) return absl::InvalidArgumentError(absl::StrCat(path.string(), ":1: a column has no name"));
    if (!IsCleanText(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path.string(), ":1: column ", Quoted(name), " is not UTF-8 without control characters"));
    }
    if (name.size() <= kMaxNameBytes) continue;
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ":1: column ", Quoted(name), " has ", name.size(),
                                                   " bytes, more than the limit of ", kMaxNameBytes));
  }
  const int user = reader.Column("user_id");
  return UserTableReader(std::move(reader), user);
}

absl::Status UserTableReader::Parse(UserRow* row) {
  BEAMLINE_ASSIGN_OR_RETURN(const std::string_view user_id, ParseUserField("user_id", reader_.field(user_)));
  row->user_id = std::string(user_id);
  row->attributes.clear();
  for (int column = 0; column < static_cast<int>(reader_.header().size()); ++column) {
    const std::string_view value = reader_.field(column);
    if (column == user_ || value.empty()) continue;
    if (value.size() > kMaxValueBytes || !IsCleanText(value)) {
      return absl::InvalidArgumentError(absl::StrCat(reader_.header()[column], " ", Quoted(value), " is not at most ",
                                                     kMaxValueBytes, " bytes of UTF-8 without control characters"));
    }
    row->attributes.push_back({reader_.header()[column], std::string(value)});
  }
  if (seen_.insert(row->user_id).second) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("user_id ", Quoted(row->user_id), " appears a second time"));
}

absl::StatusOr<bool> UserTableReader::Next(UserRow* row) {
  return reader_.NextAccepted([&] { return Parse(row); });
}

absl::StatusOr<UserTableWriter> UserTableWriter::Create(const std::filesystem::path& path,
                                                        const std::vector<std::string>& attributes) {
  std::vector<std::string> columns = {"user_id"};
  columns.insert(columns.end(), attributes.begin(), attributes.end());
  BEAMLINE_ASSIGN_OR_RETURN(TableWriter writer, TableWriter::Create(path, columns));
  return UserTableWriter(std::move(writer));
}

absl::Status UserTableWriter::Write(std::string_view user_id, const std::vector<std::string_view>& values) {
  BEAMLINE_RETURN_IF_ERROR(ParseUserField("user_id", user_id).status());
  std::vector<std::string_view> fields = {user_id};
  fields.insert(fields.end(), values.begin(), values.end());
  return writer_.Row(fields);
}

}  // namespace beamline::data
