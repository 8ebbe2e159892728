# The stand-in CRM: a real HTTP server for demos, integration tests and benches. Its HTTP comes from Boost.Beast on
# purpose: it must not share a parser (and so a misunderstanding) with the proxy it is put behind.
file(GLOB standin_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cc)
add_executable(standin_crm ${standin_sources})
target_include_directories(standin_crm PRIVATE ${CMAKE_SOURCE_DIR})
target_link_libraries(standin_crm PRIVATE metering_base Boost::headers OpenSSL::SSL OpenSSL::Crypto fmt::fmt Threads::Threads)
if(TOLLGATE_SANITIZE)  # built when asked for: the sanitized proxy is tried against the ordinary stand-in
  set_target_properties(standin_crm PROPERTIES EXCLUDE_FROM_ALL ON)
endif()
