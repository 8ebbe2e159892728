# The simulator: one program, seeds on its command line (./dev sim). Not a GoogleTest program; tests/run_all.py runs it.
file(GLOB sim_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cc)
# The store of --redis is run with what the tests of metering/redis run theirs with.
set(sim_redis ${CMAKE_CURRENT_LIST_DIR}/../metering/redis/support)
add_executable(tollgate_sim ${sim_sources} ${sim_redis}/script_client.cc ${sim_redis}/redis_fixture.cc)
target_include_directories(tollgate_sim PRIVATE ${CMAKE_SOURCE_DIR})
target_link_libraries(tollgate_sim PRIVATE metering_quota metering_redis fmt::fmt PkgConfig::LIBEVENT PkgConfig::HIREDIS)
target_precompile_headers(tollgate_sim PRIVATE ${TOLLGATE_PCH})
target_compile_options(tollgate_sim PRIVATE -O2)
