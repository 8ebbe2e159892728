#include "proxy/net/address_table.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace tollgate::net {
namespace {

using Verdict = AddressTable::Verdict;

http::IpAddress ip(std::string_view text) {
  return http::parse_address(text).value();
}
MonotonicTime at(double seconds) {
  return MonotonicTime(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds)));
}

TEST(AddressTable, CountsConnectionsOfAnAddress) {
  AddressTable table(1);
  const AddressLimits limits{.connections = 2};
  const auto first = table.enter(ip("192.0.2.1"), limits, at(1));
  const auto second = table.enter(ip("192.0.2.1"), limits, at(1));
  EXPECT_EQ(first.entry, second.entry);
  EXPECT_EQ(table.enter(ip("192.0.2.1"), limits, at(1)).verdict, Verdict::too_many);
  EXPECT_EQ(table.enter(ip("192.0.2.2"), limits, at(1)).verdict, Verdict::ok);
  table.leave(first.entry);
  EXPECT_EQ(table.enter(ip("192.0.2.1"), limits, at(1)).verdict, Verdict::ok);
}

TEST(AddressTable, AnIpv6SubscriberIsItsFirst64Bits) {
  AddressTable table(1);
  const AddressLimits limits{.connections = 1};
  EXPECT_EQ(table.enter(ip("2001:db8:1:2::1"), limits, at(1)).verdict, Verdict::ok);
  EXPECT_EQ(table.enter(ip("2001:db8:1:2:ffff::9"), limits, at(1)).verdict, Verdict::too_many);
  EXPECT_EQ(table.enter(ip("2001:db8:1:3::1"), limits, at(1)).verdict, Verdict::ok);
  // Mapped addresses have 96 equal bits in front; each is its own.
  EXPECT_EQ(table.enter(ip("::ffff:192.0.2.1"), limits, at(1)).verdict, Verdict::ok);
  EXPECT_EQ(table.enter(ip("192.0.2.2"), limits, at(1)).verdict, Verdict::ok);
  EXPECT_EQ(table.enter(ip("192.0.2.1"), limits, at(1)).verdict, Verdict::too_many);
}

TEST(AddressTable, ABurstThenTheRate) {
  AddressTable table(1);
  const AddressLimits limits{.request_rate = 10, .request_burst = 5};
  AddressTable::Entry& entry = *table.enter(ip("192.0.2.1"), limits, at(1)).entry;
  int passed = 0;
  for (int i = 0; i < 20; ++i) passed += AddressTable::may_request(entry, limits, at(1));
  EXPECT_EQ(passed, 5);
  EXPECT_FALSE(AddressTable::may_request(entry, limits, at(1.05)));
  EXPECT_TRUE(AddressTable::may_request(entry, limits, at(1.11)));
  EXPECT_FALSE(AddressTable::may_request(entry, limits, at(1.12)));
  // Ten seconds of asking a hundred times a second: ten a second pass, and the burst.
  passed = 0;
  for (int i = 0; i < 1'000; ++i) passed += AddressTable::may_request(entry, limits, at(100 + i * 0.01));
  EXPECT_NEAR(passed, 104, 1);
}

TEST(AddressTable, ABurstOfZeroIsOneSecondsWorth) {
  AddressTable table(1);
  const AddressLimits limits{.connection_rate = 7};
  int passed = 0;
  for (int i = 0; i < 20; ++i) passed += table.enter(ip("192.0.2.1"), limits, at(1)).verdict == Verdict::ok;
  EXPECT_EQ(passed, 7);
  EXPECT_EQ(table.enter(ip("192.0.2.1"), limits, at(1)).verdict, Verdict::too_fast);
}

TEST(AddressTable, DebtOutlastsTheConnection) {
  AddressTable table(1);
  const AddressLimits limits{.request_rate = 1, .request_burst = 1};
  auto admission = table.enter(ip("192.0.2.1"), limits, at(1));
  EXPECT_TRUE(AddressTable::may_request(*admission.entry, limits, at(1)));
  table.leave(admission.entry);
  admission = table.enter(ip("192.0.2.1"), limits, at(1.1));
  EXPECT_FALSE(AddressTable::may_request(*admission.entry, limits, at(1.1)));
  EXPECT_FALSE(table.may_request(ip("192.0.2.1"), limits, at(1.2)));
  EXPECT_TRUE(table.may_request(ip("192.0.2.1"), limits, at(2.2)));
}

TEST(AddressTable, MemoryIsBoundedWhateverAddressesCome) {
  constexpr std::size_t kIdle = 6'400;
  AddressTable table(7, kIdle);
  const AddressLimits limits{.connections = 1, .request_rate = 1};
  const auto held = table.enter(ip("2001:db8:ffff:ffff::1"), limits, at(1));
  for (std::uint32_t i = 0; i < 200'000; ++i) {
    http::IpAddress address = ip("2001:db8::");
    address.bytes[4] = static_cast<std::uint8_t>(i >> 24);
    address.bytes[5] = static_cast<std::uint8_t>(i >> 16);
    address.bytes[6] = static_cast<std::uint8_t>(i >> 8);
    address.bytes[7] = static_cast<std::uint8_t>(i);
    const auto admission = table.enter(address, limits, at(2));
    ASSERT_EQ(admission.verdict, Verdict::ok);
    table.leave(admission.entry);
  }
  EXPECT_LE(table.size(), kIdle + 1);
  EXPECT_GE(table.size(), kIdle / 2);
  // Who is connected is never forgotten.
  EXPECT_EQ(table.enter(ip("2001:db8:ffff:ffff::2"), limits, at(3)).verdict, Verdict::too_many);
  table.leave(held.entry);
}

TEST(AddressTable, WorkersShareIt) {
  AddressTable table(3);
  const AddressLimits limits{.connections = 50, .request_rate = 1'000, .request_burst = 1'000};
  std::atomic<int> admitted{0}, requests{0};
  std::vector<std::thread> workers;
  for (int worker = 0; worker < 4; ++worker)
    workers.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        const auto admission = table.enter(ip("192.0.2.1"), limits, at(1));
        if (admission.entry == nullptr) continue;
        ++admitted;
        for (int request = 0; request < 100; ++request)
          requests += AddressTable::may_request(*admission.entry, limits, at(1));
      }
    });
  for (auto& worker : workers) worker.join();
  EXPECT_EQ(admitted, 50);
  EXPECT_EQ(requests, 1'000);
}

}  // namespace
}  // namespace tollgate::net
