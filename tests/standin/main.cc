// standin_crm --listen 127.0.0.1:0 [--tls-certificate FILE --tls-key FILE]
// Prints "listening on ADDRESS:PORT" once it accepts connections. Ends on TERM or INT.
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>

#include <cstdio>
#include <thread>

#include "metering/base/ascii.h"
#include "tests/standin/connection.h"

namespace {

using tcp = boost::asio::ip::tcp;

struct Flags {
  std::string address = "127.0.0.1";
  std::uint16_t port = 0;
  std::string certificate, key;
  bool good = true;
};

Flags parse_flags(int argc, char** argv) {
  Flags flags;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view name = argv[i];
    const std::string value = i + 1 < argc ? argv[i + 1] : "";
    if (value.empty())
      flags.good = false;
    else if (name == "--listen") {
      const std::size_t colon = value.rfind(':');
      const auto port = colon == std::string::npos
                            ? std::nullopt
                            : tollgate::parse_decimal(std::string_view(value).substr(colon + 1));
      if (!port || *port > 65'535)
        flags.good = false;
      else
        flags.port = static_cast<std::uint16_t>(*port);
      flags.address = value.substr(0, colon);
    } else if (name == "--tls-certificate")
      flags.certificate = value;
    else if (name == "--tls-key")
      flags.key = value;
    else
      flags.good = false;
  }
  return flags;
}

[[noreturn]] void accept_forever(tcp::acceptor& acceptor, boost::asio::ssl::context* tls) {
  static tollgate::standin::Crm crm;
  static tollgate::standin::Control control;
  for (;;) {
    boost::system::error_code error;
    tcp::socket socket = acceptor.accept(error);
    if (error) {  // out of descriptors: give connections a moment to end
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      continue;
    }
    socket.set_option(tcp::no_delay(true), error);
    std::thread([socket = std::move(socket), tls]() mutable {
      tollgate::standin::Stream stream(std::move(socket));
      if (tls == nullptr || stream.start_tls(*tls))
        tollgate::standin::serve_connection(std::move(stream), crm, control);
    }).detach();
  }
}

int serve(const Flags& flags) {
  sigset_t ending;
  sigemptyset(&ending);
  sigaddset(&ending, SIGTERM);
  sigaddset(&ending, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ending, nullptr);
  signal(SIGPIPE, SIG_IGN);

  boost::asio::io_context io;
  tcp::acceptor acceptor(io, tcp::endpoint(boost::asio::ip::make_address(flags.address), flags.port));
  std::unique_ptr<boost::asio::ssl::context> tls;
  if (!flags.certificate.empty()) {
    tls = std::make_unique<boost::asio::ssl::context>(boost::asio::ssl::context::tls_server);
    tls->use_certificate_chain_file(flags.certificate);
    tls->use_private_key_file(flags.key, boost::asio::ssl::context::pem);
  }
  fmt::print("listening on {}:{}\n", flags.address, acceptor.local_endpoint().port());
  std::fflush(stdout);
  std::thread(accept_forever, std::ref(acceptor), tls.get()).detach();
  int signal_number = 0;
  sigwait(&ending, &signal_number);
  std::fflush(stdout);
  std::_Exit(0);  // connection threads may be inside a call; there is nothing to save
}

}  // namespace

int main(int argc, char** argv) {
  const Flags flags = parse_flags(argc, argv);
  if (!flags.good) {
    fmt::print(stderr, "usage: standin_crm --listen 127.0.0.1:0 [--tls-certificate FILE --tls-key FILE]\n");
    return 2;
  }
  try {
    return serve(flags);
  } catch (const std::exception& error) {
    fmt::print(stderr, "standin_crm: {}\n", error.what());
    return 1;
  }
}
