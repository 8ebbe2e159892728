# The simulator: one program, seeds on its command line (./dev sim). Not a GoogleTest program; tests/run_all.py runs it.
file(GLOB sim_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cc)
add_executable(tollgate_sim ${sim_sources})
target_include_directories(tollgate_sim PRIVATE ${CMAKE_SOURCE_DIR})
target_link_libraries(tollgate_sim PRIVATE metering_quota fmt::fmt)
target_precompile_headers(tollgate_sim PRIVATE ${TOLLGATE_PCH})
