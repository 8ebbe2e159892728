#include "proxy/http/address.h"

#include <gtest/gtest.h>

#include "proxy/http/request_parser.h"

namespace tollgate::http {
namespace {

std::string canonical(std::string_view text) {
  const auto address = parse_address(text);
  return address ? address->to_string() : "not an address";
}

AddressSet set_of(std::vector<std::string> cidrs) {
  auto set = AddressSet::parse(cidrs);
  EXPECT_TRUE(set) << (set ? "" : set.error().message);
  return set ? *set : AddressSet();
}

TEST(IpAddress, GoodTextsBecomeCanonical) {
  const std::pair<std::string, std::string> cases[] = {
      {"192.0.2.1", "192.0.2.1"},
      {"0.0.0.0", "0.0.0.0"},
      {"255.255.255.255", "255.255.255.255"},
      {"::", "::"},
      {"::1", "::1"},
      {"1::", "1::"},
      {"2001:DB8:0:0:0:0:0:1", "2001:db8::1"},
      {"2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"},
      {"2001:0:0:1:0:0:0:1", "2001:0:0:1::1"},
      {"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"},
      {"fe80::0abc", "fe80::abc"},
      {"1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"},
      {"1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"},
      {"::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"},
      {"::ffff:192.0.2.1", "192.0.2.1"},
      {"::ffff:c000:201", "192.0.2.1"},
      {"64:ff9b::192.0.2.33", "64:ff9b::c000:221"},
      {"1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304"},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(canonical(text), expected) << text;
}

TEST(IpAddress, BadTextsAreNoAddresses) {
  for (std::string_view text : {"",
                                "1",
                                "1.2.3",
                                "1.2.3.4.5",
                                "256.1.1.1",
                                "01.2.3.4",
                                "1.2.3.04",
                                "1.2.3.4 ",
                                " 1.2.3.4",
                                "1.2.3.",
                                ".1.2.3",
                                "1..2.3",
                                "0x7f.0.0.1",
                                "+1.2.3.4",
                                "1.2.3.4/8",
                                "1.2.3.4:80",
                                ":",
                                ":::",
                                "::1::",
                                "1:2:3:4:5:6:7",
                                "1:2:3:4:5:6:7:8:9",
                                "1:2:3:4:5:6:7:8::",
                                "12345::",
                                "g::",
                                "[::1]",
                                "::1%eth0",
                                "::1.2.3",
                                "1.2.3.4::",
                                "::1.2.3.4:5",
                                "1:2:3:4:5:6:7:1.2.3.4",
                                "1:",
                                ":1",
                                "unknown",
                                "_hidden",
                                "localhost"})
    EXPECT_FALSE(parse_address(text)) << text;
}

TEST(IpAddress, PortsAndBracketsAreReadWhereProxiesWriteThem) {
  const auto read = [](std::string_view text) {
    const auto address = parse_address_with_port(text);
    return address ? address->to_string() : "no";
  };
  EXPECT_EQ(read("192.0.2.1:4711"), "192.0.2.1");
  EXPECT_EQ(read("[2001:db8::1]:4711"), "2001:db8::1");
  EXPECT_EQ(read("[2001:db8::1]"), "2001:db8::1");
  EXPECT_EQ(read("2001:db8::1"), "2001:db8::1");
  for (std::string_view text : {"192.0.2.1:", "192.0.2.1:x", "192.0.2.1:65536", "192.0.2.1:000080", "[::1",
                                "[::1]x", "[::1]:", "[1.2.3.4]", "", "[]", ":80"})
    EXPECT_EQ(read(text), "no") << text;
}

TEST(AddressSet, ContainsItsNetworksAndNothingElse) {
  const AddressSet set = set_of({"10.0.0.0/8", "192.0.2.7", "2001:db8::/33", "172.16.0.0/12", "::1"});
  for (std::string_view inside : {"10.0.0.0", "10.255.255.255", "192.0.2.7", "::ffff:10.1.2.3",
                                  "2001:db8:7fff::1", "172.31.0.1", "::1"})
    EXPECT_TRUE(set.contains(inside)) << inside;
  for (std::string_view outside : {"9.255.255.255", "11.0.0.0", "192.0.2.6", "192.0.2.8",
                                   "2001:db8:8000::", "172.32.0.1", "::2", "::a00:1", "junk", ""})
    EXPECT_FALSE(set.contains(outside)) << outside;
}

TEST(AddressSet, ZeroPrefixesMeanTheWholeFamily) {
  EXPECT_TRUE(set_of({"0.0.0.0/0"}).contains("203.0.113.9"));
  EXPECT_FALSE(set_of({"0.0.0.0/0"}).contains("2001:db8::1"));
  EXPECT_TRUE(set_of({"::/0"}).contains("2001:db8::1"));
  EXPECT_TRUE(set_of({"::/0"}).contains("203.0.113.9")) << "as ::ffff:203.0.113.9";
}

TEST(AddressSet, MappedNetworksAreIpv4Networks) {
  EXPECT_TRUE(set_of({"::ffff:10.0.0.0/104"}).contains("10.1.2.3"));
  EXPECT_FALSE(set_of({"::ffff:10.0.0.0/104"}).contains("11.1.2.3"));
}

TEST(AddressSet, BadNetworksAreConfigErrorsThatQuoteTheEntry) {
  for (std::string cidr :
       {"", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/08", "10.0.0.1/8", "2001:db8::/129",
        "2001:db8::1/32", "10.0.0/8", "localhost", "10.0.0.0/8 ", "10.0.0.0/255.0.0.0", "*"}) {
    const std::string good = "127.0.0.1";
    const std::vector<std::string> cidrs = {good, cidr};
    const auto set = AddressSet::parse(cidrs);
    ASSERT_FALSE(set) << cidr;
    EXPECT_EQ(set.error().origin, Origin::config);
    EXPECT_NE(set.error().message.find("\"" + cidr + "\""), std::string::npos) << set.error().message;
  }
}

TEST(AddressSet, EmptyContainsNothing) {
  EXPECT_TRUE(set_of({}).empty());
  EXPECT_FALSE(set_of({}).contains("127.0.0.1"));
}

class ClientOf : public ::testing::Test {
 protected:
  ClientInfo client(std::string_view peer, std::string_view fields, bool peer_https = false) {
    const std::string bytes = "GET / HTTP/1.1\r\nHost: crm.example\r\n" + std::string(fields) + "\r\n";
    RequestParser parser({});
    EXPECT_EQ(parser.parse(bytes), ParseStatus::complete);
    return client_of(peer, peer_https, parser.head(), trusted_);
  }
  AddressSet trusted_ = set_of({"10.0.0.0/8", "2001:db8::/32"});
};

TEST_F(ClientOf, UntrustedPeerIsTheClientWhateverItSays) {
  const ClientInfo info =
      client("192.0.2.1",
             "X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.2;proto=https;host=evil\r\n"
             "X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n");
  EXPECT_EQ(info.address, "192.0.2.1");
  EXPECT_FALSE(info.https);
  EXPECT_EQ(info.host, "crm.example");
  EXPECT_FALSE(info.trusted_peer);
}

TEST_F(ClientOf, FirstUntrustedHopFromTheRightIsTheClient) {
  EXPECT_EQ(client("10.0.0.1", "X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.0.0.2\r\n").address, "203.0.113.9");
  EXPECT_EQ(client("10.0.0.1", "X-Forwarded-For: 203.0.113.9\r\n").address, "203.0.113.9");
  EXPECT_EQ(
      client("10.0.0.1", "X-Forwarded-For: 6.6.6.6,203.0.113.9\r\nX-Forwarded-For: 10.9.9.9\r\n").address,
      "203.0.113.9");
  EXPECT_EQ(client("::ffff:10.0.0.1", "X-Forwarded-For: [2001:db9::1]:80\r\n").address, "2001:db9::1");
}

TEST_F(ClientOf, ListOfTrustedHopsOnlyEndsAtItsLeft) {
  EXPECT_EQ(client("10.0.0.1", "X-Forwarded-For: 10.0.0.7, 10.0.0.2\r\n").address, "10.0.0.7");
  EXPECT_EQ(client("10.0.0.1", "").address, "10.0.0.1");
}

TEST_F(ClientOf, GarbageEndsTheWalkAtTheLastKnownHop) {
  for (std::string_view garbage :
       {"unknown", "", "1.2.3", "_x", "10.0.0.2:", "<script>", "999.1.1.1", "10.0.0.1 10.0.0.2"}) {
    const std::string fields = "X-Forwarded-For: 203.0.113.9, " + std::string(garbage) + ", 10.0.0.2\r\n";
    EXPECT_EQ(client("10.0.0.1", fields).address, "10.0.0.2") << garbage;
  }
  EXPECT_EQ(client("10.0.0.1", "X-Forwarded-For: 203.0.113.9, junk\r\n").address, "10.0.0.1");
  EXPECT_EQ(client("10.0.0.1", "X-Forwarded-For:\r\n").address, "10.0.0.1");
}

TEST_F(ClientOf, ForwardedIsReadWhenThereIsNoForwardedFor) {
  EXPECT_EQ(
      client("10.0.0.1", "Forwarded: for=6.6.6.6, for=203.0.113.9;proto=https;by=10.0.0.1, for=10.0.0.2\r\n")
          .address,
      "203.0.113.9");
  EXPECT_EQ(client("10.0.0.1", "Forwarded: For=\"[2001:db9::9]:4711\";proto=http\r\n").address,
            "2001:db9::9");
  EXPECT_EQ(client("10.0.0.1", "Forwarded: for=203.0.113.9;host=\"a:8443\";proto=HTTPS\r\n").host, "a:8443");
  EXPECT_TRUE(client("10.0.0.1", "Forwarded: for=203.0.113.9;proto=https\r\n").https);
  EXPECT_EQ(client("10.0.0.1", "Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 203.0.113.9\r\n").address,
            "203.0.113.9");
}

TEST_F(ClientOf, MalformedForwardedEndsTheWalk) {
  for (std::string_view bad : {"for=_hidden", "for=unknown", "203.0.113.9", "for=203.0.113.9;for=6.6.6.6",
                               "for=\"203.0.113.9", "for=[::1]"}) {
    EXPECT_EQ(client("10.0.0.1", "Forwarded: for=6.6.6.6, " + std::string(bad) + "\r\n").address, "10.0.0.1")
        << bad;
  }
}

TEST_F(ClientOf, ProtoAndHostOfATrustedPeerCount) {
  const ClientInfo info = client("10.0.0.1",
                                 "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: http, "
                                 "https\r\nX-Forwarded-Host: portal.example\r\n");
  EXPECT_TRUE(info.https);
  EXPECT_EQ(info.host, "portal.example");
  EXPECT_TRUE(info.trusted_peer);
  EXPECT_FALSE(client("10.0.0.1", "X-Forwarded-Proto: http\r\n", true).https);
  EXPECT_TRUE(client("10.0.0.1", "X-Forwarded-Proto: gopher\r\n", true).https);
  EXPECT_EQ(client("10.0.0.1", "X-Forwarded-Host: a b\r\n").host, "crm.example");
}

TEST(CanonicalAddress, EverySpellingBecomesOne) {
  EXPECT_EQ(canonical_address("192.0.2.7"), "192.0.2.7");
  EXPECT_EQ(canonical_address("::ffff:192.0.2.7"), "192.0.2.7");
  EXPECT_EQ(canonical_address("2001:DB8:0:0::1"), "2001:db8::1");
  EXPECT_EQ(canonical_address("unix"), "");
  EXPECT_EQ(canonical_address(""), "");
}

TEST_F(ClientOf, PeerWithoutAnAddressSpeaksForNobody) {
  const ClientInfo info = client("", "X-Forwarded-For: 203.0.113.9\r\n", true);
  EXPECT_EQ(info.address, "");
  EXPECT_TRUE(info.https);
  EXPECT_FALSE(info.trusted_peer);
}

}  // namespace
}  // namespace tollgate::http
