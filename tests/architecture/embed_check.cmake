# Configures embed_host, whose CMakeLists.txt checks what Beamline does to a host, and compiles its sources: the public
# headers are there for it, the others are not.
cmake_minimum_required(VERSION 3.25)
file(REMOVE_RECURSE ${WORK})
execute_process(
  COMMAND ${CMAKE_COMMAND} -G Ninja -S ${HOST} -B ${WORK} -DBEAMLINE=${BEAMLINE} -DCMAKE_CXX_COMPILER=${COMPILER}
          -DBEAMLINE_TORCH_INCLUDE=${TORCH_INCLUDE} -Dabsl_DIR=${absl_DIR} -Dspdlog_DIR=${spdlog_DIR} -Dfmt_DIR=${fmt_DIR}
  RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "a host that embeds Beamline cannot be configured:\n${output}")
endif()

# The object by its file, since a target would build the libraries, too; of this one -fsyntax-only writes nothing.
foreach(source public internal kernels)
  execute_process(COMMAND ${CMAKE_COMMAND} --build ${WORK} --target CMakeFiles/${source}.dir/${source}.cc.o
    RESULT_VARIABLE result_${source} OUTPUT_VARIABLE output_${source} ERROR_VARIABLE output_${source})
endforeach()
if(NOT result_public EQUAL 0)
  message(FATAL_ERROR "beamline::embed: the public headers do not compile:\n${output_public}")
endif()
foreach(case internal=base/file.h kernels=beamline/kernels/packed_gemm.h)
  string(REPLACE "=" ";" case ${case})
  list(GET case 0 source)
  list(GET case 1 header)
  if(result_${source} EQUAL 0)
    message(FATAL_ERROR "beamline::embed: a host can include ${header}, which is no public header")
  elseif(NOT output_${source} MATCHES "${header}: No such file|'${header}' file not found")
    message(FATAL_ERROR "beamline::embed: ${source}.cc failed, but not for want of ${header}:\n${output_${source}}")
  endif()
endforeach()
