#include "proxy/net/http_transfer.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/proxy/net/support/sockets.h"

namespace tollgate::net {
namespace {

using test::AnsweringServer;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

std::string reply(std::string_view body, std::string_view fields = "") {
  return fmt::format("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n{}Content-Length: {}\r\n\r\n{}", fields,
                     body.size(), body);
}
HttpRequest request_to(const AnsweringServer& server, std::string_view path = "/") {
  return {.url = server.url() + std::string(path), .reply_max = 1'000};
}

TEST(HttpTransfer, PathsGoOutAsTheyAreWritten) {
  AnsweringServer server([](const std::string&) { return reply("yes"); });
  HttpTransfer transfer;
  const auto outcome = transfer.perform(request_to(server, "/a/../b/."));
  ASSERT_TRUE(outcome) << outcome.error().text;
  EXPECT_EQ(outcome->status, 200);
  EXPECT_EQ(outcome->body, "yes");
  EXPECT_THAT(server.asked(), ElementsAre("GET /a/../b/."));
}

TEST(HttpTransfer, NothingOfARequestIsLeftForTheNext) {
  AnsweringServer server([](const std::string&) { return reply("{}"); });
  HttpTransfer transfer;
  HttpRequest first = request_to(server);
  first.method = "PUT";
  first.fields = {"Authorization: Bearer t1"};
  first.body = "a=1";
  ASSERT_TRUE(transfer.perform(first));
  EXPECT_THAT(server.last(), EndsWith("\r\n\r\na=1"));
  EXPECT_THAT(server.last(), HasSubstr("Content-Type: application/x-www-form-urlencoded\r\n"));
  ASSERT_TRUE(transfer.perform(request_to(server)));
  EXPECT_THAT(server.last(), Not(HasSubstr("Bearer")));
  HttpRequest empty = request_to(server);
  empty.body = "";
  ASSERT_TRUE(transfer.perform(empty));
  EXPECT_THAT(server.last(), HasSubstr("Content-Length: 0\r\n"));
  EXPECT_THAT(server.asked(), ElementsAre("PUT /", "GET /", "POST /"));
}

TEST(HttpTransfer, AReplyBeyondItsBoundIsNone) {
  AnsweringServer server([](const std::string& request) {
    return request.starts_with("GET /said") ? reply(std::string(1'001, 'x'))
                                            : "HTTP/1.1 200 OK\r\n\r\n" + std::string(1'001, 'x');
  });
  AnsweringServer fitting([](const std::string&) { return reply(std::string(1'000, 'x')); });
  HttpTransfer transfer;
  for (const char* path : {"/said", "/unsaid"}) {
    const auto outcome = transfer.perform(request_to(server, path));
    ASSERT_FALSE(outcome) << path;
    EXPECT_TRUE(outcome.error().too_large) << path;
    EXPECT_EQ(outcome.error().text, "the reply is larger than 1000 bytes") << path;
  }
  EXPECT_TRUE(transfer.perform(request_to(fitting)));
}

TEST(HttpTransfer, TextsOfFailuresHoldNothingOfTheRequest) {
  HttpTransfer transfer;
  const auto outcome =
      transfer.perform({.url = fmt::format("http://127.0.0.1:{}/secret", test::unused_port()),
                        .fields = {"Authorization: secret"},
                        .body = "secret",
                        .reply_max = 1'000});
  ASSERT_FALSE(outcome);
  EXPECT_FALSE(outcome.error().too_large);
  EXPECT_THAT(outcome.error().text, HasSubstr("127.0.0.1"));
  EXPECT_THAT(outcome.error().text, Not(HasSubstr("secret")));
}

TEST(HttpTransfer, CookiesAreKeptWhereTheyAreWantedUntilTheyAreForgotten) {
  AnsweringServer server(
      [](const std::string&) { return reply("", "Set-Cookie: a=1; path=/; HttpOnly\r\n"); });
  HttpTransfer plain, keeping;
  keeping.keep_cookies();
  for (HttpTransfer* transfer : {&plain, &keeping}) {
    ASSERT_TRUE(transfer->perform(request_to(server)));
    ASSERT_TRUE(transfer->perform(request_to(server)));
    EXPECT_EQ(server.last().find("Cookie: a=1\r\n") != std::string::npos, transfer == &keeping);
  }
  EXPECT_EQ(plain.cookie("a"), "");
  EXPECT_EQ(keeping.cookie("a"), "1");
  EXPECT_EQ(keeping.cookie("b"), "");
  keeping.forget_cookies();
  EXPECT_EQ(keeping.cookie("a"), "");
  ASSERT_TRUE(keeping.perform(request_to(server)));
  EXPECT_THAT(server.last(), Not(HasSubstr("Cookie:")));
}

TEST(HttpTransfer, StopBreaksOffAServerThatIsSilent) {
  std::atomic<bool> stop{false};
  AnsweringServer server([&](const std::string&) {
    stop = true;
    return std::string();
  });
  HttpTransfer transfer;
  HttpRequest request = request_to(server);
  request.timeout = Milliseconds(600'000);
  request.stop = &stop;
  const auto outcome = transfer.perform(request);
  ASSERT_FALSE(outcome);
  EXPECT_FALSE(outcome.error().too_large);
}

TEST(HttpTransfers, ManyAreUnderWayAtATimeAndEachIsToldItsOwn) {
  AnsweringServer server([](const std::string& request) { return reply(request.substr(5, 1)); });
  HttpTransfers transfers(2);
  std::vector<std::unique_ptr<HttpTransfer>> each;
  std::string told(9, '-');
  for (std::size_t i = 0; i < told.size(); ++i) {
    each.push_back(std::make_unique<HttpTransfer>());
    transfers.begin(*each[i], request_to(server, fmt::format("/{}", i)), [&, i](HttpOutcome outcome) {
      told[i] = outcome ? outcome->body[0] : '!';
      each[i].reset();
    });
  }
  while (told.find('-') != told.npos) {
    transfers.step();
    transfers.wait(Milliseconds(1'000));
  }
  EXPECT_EQ(told, "012345678");
}

TEST(HttpTransfers, ATransferThatGoesIsNotToldOf) {
  AnsweringServer server([](const std::string&) { return std::string(); });
  HttpTransfers transfers;
  bool told = false;
  {
    HttpTransfer transfer;
    transfers.begin(transfer, request_to(server), [&](const HttpOutcome&) { told = true; });
    while (server.asked().empty()) {
      transfers.step();
      transfers.wait(Milliseconds(10));
    }
  }
  transfers.step();
  EXPECT_FALSE(told);
}

}  // namespace
}  // namespace tollgate::net
