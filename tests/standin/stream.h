// A connection's bytes, plain or TLS, with room to put back what was read too far. Satisfies Boost's
// SyncStream, so that HTTP and WebSocket of Beast run over it.
#pragma once
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core/buffers_prefix.hpp>
#include <boost/beast/websocket/teardown.hpp>
#include <memory>
#include <string>

namespace tollgate::standin {

class Stream {
 public:
  using tcp = boost::asio::ip::tcp;
  using executor_type = tcp::socket::executor_type;

  explicit Stream(tcp::socket socket) : socket_(std::make_unique<tcp::socket>(std::move(socket))) {}

  // False when the client does not complete the TLS handshake.
  bool start_tls(boost::asio::ssl::context& context) {
    tls_ = std::make_unique<boost::asio::ssl::stream<tcp::socket&>>(*socket_, context);
    boost::system::error_code error;
    tls_->handshake(boost::asio::ssl::stream_base::server, error);
    return !error;
  }
  executor_type get_executor() { return socket_->get_executor(); }
  tcp::socket& socket() { return *socket_; }
  void put_back(std::string bytes) { ahead_.insert(0, bytes); }

  template <class Buffers>
  std::size_t read_some(const Buffers& buffers, boost::system::error_code& error) {
    if (!ahead_.empty()) {
      const std::size_t copied = boost::asio::buffer_copy(buffers, boost::asio::buffer(ahead_));
      ahead_.erase(0, copied);
      error = {};
      return copied;
    }
    return tls_ ? tls_->read_some(buffers, error) : socket_->read_some(buffers, error);
  }
  template <class Buffers>
  std::size_t write_some(const Buffers& buffers, boost::system::error_code& error) {
    return tls_ ? tls_->write_some(buffers, error) : socket_->write_some(buffers, error);
  }
  template <class Buffers>
  std::size_t read_some(const Buffers& buffers) {
    boost::system::error_code error;
    const std::size_t n = read_some(buffers, error);
    if (error) throw boost::system::system_error(error);
    return n;
  }
  template <class Buffers>
  std::size_t write_some(const Buffers& buffers) {
    boost::system::error_code error;
    const std::size_t n = write_some(buffers, error);
    if (error) throw boost::system::system_error(error);
    return n;
  }
  void shut_down() {
    boost::system::error_code ignored;
    if (tls_) tls_->shutdown(ignored);
    socket_->shutdown(tcp::socket::shutdown_both, ignored);
    socket_->close(ignored);
  }

 private:
  std::unique_ptr<tcp::socket> socket_;  // stays where it is when the Stream moves: tls_ refers to it
  std::unique_ptr<boost::asio::ssl::stream<tcp::socket&>> tls_;
  std::string ahead_;
};

// How Beast ends a WebSocket (found by argument-dependent look-up).
inline void teardown(boost::beast::role_type role, Stream& stream, boost::system::error_code& error) {
  boost::beast::websocket::teardown(role, stream.socket(), error);
}

}  // namespace tollgate::standin
