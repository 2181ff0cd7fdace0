// SPDX-License-Identifier: Apache-2.0
//
// Runs the AMX instructions of gemm_amx.cc on a CPU that lacks them: each is an illegal instruction, whose signal's
// handler decodes it, does what the Intel SDM (volume 1, chapter 18, and volume 2) says, and goes on behind it. What
// the SDM forbids ends the program with a message: tiles that are not configured, shapes that do not match, one
// register in two places. So the assembly of amx_tiles.h is tested as it is: encodings, registers, strides,
// configuration. A CPU that has AMX runs them itself.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

namespace {

constexpr int kRegisters = 8, kMostRows = 16, kRowBytes = 64;

struct Config {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(Config) == 64);

struct State {
  Config config = {};
  alignas(64) uint8_t tile[kRegisters][kMostRows][kRowBytes] = {};
};
thread_local State state;

[[noreturn]] void Forbidden(const char* what) {
  std::fprintf(stderr, "AMX: %s\n", what);
  std::abort();
}
void Require(bool holds, const char* what) {
  if (!holds) Forbidden(what);
}

// An instruction with a VEX prefix of three bytes, opcode map 0F38: the only form that AMX has.
struct Instruction {
  int prefix;  // 0: none, 1: 66, 2: F3, 3: F2
  uint8_t opcode;
  int reg, rm, vvvv;
  bool memory;
  uint64_t address;  // without an index
  int64_t index;     // stride of a tile, scaled
  int bytes;
};

bool Decode(const uint8_t* code, const greg_t* registers, Instruction* in) {
  static constexpr int kOrder[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                     REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  const auto value = [registers](int number) { return static_cast<int64_t>(registers[kOrder[number]]); };
  if (code[0] != 0xc4 || (code[1] & 0x1f) != 2 || (code[2] & 0x84) != 0) return false;  // map 0F38, W0, 128 bits
  const int index_high = (code[1] & 0x40) == 0 ? 8 : 0, base_high = (code[1] & 0x20) == 0 ? 8 : 0;
  const uint8_t modrm = code[4], mod = modrm >> 6;
  *in = {.prefix = code[2] & 3,
         .opcode = code[3],
         .reg = modrm >> 3 & 7,
         .rm = modrm & 7,
         .vvvv = ~code[2] >> 3 & 15,
         .memory = mod != 3,
         .address = 0,
         .index = 0,
         .bytes = 5};
  if (!in->memory) return true;
  bool has_base = true;
  int base = in->rm + base_high;
  if (in->rm == 4) {
    const uint8_t sib = code[in->bytes++];
    base = (sib & 7) + base_high;
    has_base = mod != 0 || (sib & 7) != 5;
    const int index = (sib >> 3 & 7) + index_high;
    if (index != 4) in->index = value(index) << (sib >> 6);
  }
  int64_t displacement = 0;
  const bool relative = mod == 0 && in->rm == 5;
  if (mod == 1) {
    displacement = (code[in->bytes++] ^ 0x80) - 0x80;  // sign-extended
  } else if (mod == 2 || relative || !has_base) {
    int32_t wide;
    std::memcpy(&wide, code + in->bytes, sizeof(wide));
    in->bytes += 4;
    displacement = wide;
  }
  const int64_t from = relative ? registers[REG_RIP] + in->bytes : has_base ? value(base) : 0;
  in->address = static_cast<uint64_t>(from + displacement);
  return true;
}

void Configure(const Instruction& in) {
  Config config;
  std::memcpy(&config, reinterpret_cast<const void*>(in.address), sizeof(config));
  Require(config.palette == 1 && config.start_row == 0, "ldtilecfg: palette 1 from row 0 is what is emulated");
  for (const uint8_t byte : config.reserved) Require(byte == 0, "ldtilecfg: reserved bytes");
  for (int t = 0; t < 16; ++t) {
    const int rows = config.rows[t], row_bytes = config.row_bytes[t];
    Require(t < kRegisters || (rows == 0 && row_bytes == 0), "ldtilecfg: a register that does not exist");
    Require(rows <= kMostRows && row_bytes <= kRowBytes && (rows == 0) == (row_bytes == 0), "ldtilecfg: shape");
  }
  state = {};
  state.config = config;
}

void RequireTile(int tile) {
  Require(tile < kRegisters && state.config.palette == 1 && state.config.rows[tile] != 0, "a tile not configured");
}

void Move(const Instruction& in, bool load) {
  RequireTile(in.reg);
  Require(in.rm == 4 && in.vvvv == 0, "tile memory without SIB");
  if (load) std::memset(state.tile[in.reg], 0, sizeof(state.tile[in.reg]));
  for (int row = 0; row < state.config.rows[in.reg]; ++row) {
    void* memory = reinterpret_cast<void*>(in.address + static_cast<uint64_t>(row * in.index));
    void* held = state.tile[in.reg][row];
    std::memcpy(load ? held : memory, load ? memory : held, state.config.row_bytes[in.reg]);
  }
}

// Numbers below the normal ones are zeros, read and written.
float Flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
float FromBf16(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return Flushed(value);
}

void MultiplyBf16(const uint8_t* row, const uint8_t (*columns)[kRowBytes], int pairs, void* sums) {
  const uint16_t* a = reinterpret_cast<const uint16_t*>(row);
  float even[16] = {}, odd[16] = {}, sum[16];
  for (int k = 0; k < pairs; ++k) {
    const uint16_t* b = reinterpret_cast<const uint16_t*>(columns[k]);
    const float a0 = FromBf16(a[2 * k]), a1 = FromBf16(a[2 * k + 1]);
    for (int n = 0; n < 16; ++n) even[n] = Flushed(std::fma(a0, FromBf16(b[2 * n]), even[n]));
    for (int n = 0; n < 16; ++n) odd[n] = Flushed(std::fma(a1, FromBf16(b[2 * n + 1]), odd[n]));
  }
  std::memcpy(sum, sums, sizeof(sum));
  for (int n = 0; n < 16; ++n) sum[n] = Flushed(Flushed(sum[n]) + Flushed(even[n] + odd[n]));
  std::memcpy(sums, sum, sizeof(sum));
}

void MultiplyInt8(const uint8_t* row, const uint8_t (*columns)[kRowBytes], int groups, void* sums) {
  const int8_t* a = reinterpret_cast<const int8_t*>(row);
  uint32_t sum[16];
  std::memcpy(sum, sums, sizeof(sum));
  for (int k = 0; k < groups; ++k) {
    const int8_t* b = reinterpret_cast<const int8_t*>(columns[k]);
    for (int n = 0; n < 16; ++n) {
      for (int i = 0; i < 4; ++i) sum[n] += static_cast<uint32_t>(a[4 * k + i] * b[4 * n + i]);
    }
  }
  std::memcpy(sums, sum, sizeof(sum));
}

void Multiply(const Instruction& in, bool bf16) {
  const int to = in.reg, rows = in.rm, columns = in.vvvv;
  RequireTile(to);
  RequireTile(rows);
  RequireTile(columns);
  const Config& c = state.config;
  Require(to != rows && to != columns && rows != columns, "one tile in two places");
  Require(
      c.rows[to] == c.rows[rows] && c.row_bytes[to] == c.row_bytes[columns] && c.row_bytes[rows] == 4 * c.rows[columns],
      "tiles that do not match");
  for (int m = 0; m < c.rows[to]; ++m) {
    (bf16 ? MultiplyBf16 : MultiplyInt8)(state.tile[rows][m], state.tile[columns], c.rows[columns], state.tile[to][m]);
  }
}

bool Execute(const Instruction& in) {
  switch (in.opcode << 8 | in.prefix) {
    case 0x4900:
      if (in.memory && in.reg == 0) {
        Configure(in);
      } else if (!in.memory && in.reg == 0 && in.rm == 0) {
        state = {};
      } else {
        return false;
      }
      return true;
    case 0x4903:
      RequireTile(in.reg);
      std::memset(state.tile[in.reg], 0, sizeof(state.tile[in.reg]));
      return true;
    case 0x4b03:
    case 0x4b02:
      Move(in, in.prefix == 3);
      return true;
    case 0x5c02:
    case 0x5e03:
      Multiply(in, in.opcode == 0x5c);
      return true;
    default:
      return false;
  }
}

void OnIllegalInstruction(int, siginfo_t*, void* context) {
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const uint8_t* code = reinterpret_cast<const uint8_t*>(registers[REG_RIP]);
  Instruction in;
  if (!Decode(code, registers, &in) || !Execute(in)) {
    std::fprintf(stderr, "illegal instruction at %p: %02x %02x %02x %02x %02x %02x\n", static_cast<const void*>(code),
                 code[0], code[1], code[2], code[3], code[4], code[5]);
    std::abort();
  }
  registers[REG_RIP] += in.bytes;
}

[[maybe_unused]] const bool kInstalled = [] {
  syscall(SYS_arch_prctl, 0x1023, 18);  // tile registers, as cpu_features.cc asks for them; fails where there are none
  struct sigaction action = {};
  action.sa_sigaction = OnIllegalInstruction;
  action.sa_flags = SA_SIGINFO;
  return sigaction(SIGILL, &action, nullptr) == 0;
}();

}  // namespace
