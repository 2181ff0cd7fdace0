# The backend contract, held by a test: model, decode and runtime call the op set and nothing else of ATen.
#
#   cmake -DNM=nm -DLIBRARIES=a.a,b.a -P op_set_check.cmake
#
# Fails and names every undefined symbol whose function lives in at:: or torch::, in any of the libraries. What a tensor
# knows of itself (sizes, dtype, device) is inline or in c10, and allowed; so is the number of threads.
if(NOT NM OR NOT LIBRARIES)
  message(FATAL_ERROR "op_set_check: set NM and LIBRARIES")
endif()
string(REPLACE "," ";" LIBRARIES "${LIBRARIES}")
set(problems "")
foreach(library IN LISTS LIBRARIES)
  execute_process(COMMAND ${NM} -C --undefined-only ${library} OUTPUT_VARIABLE symbols RESULT_VARIABLE result
    ERROR_VARIABLE errors)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "op_set_check: ${NM} ${library}: ${errors}")
  endif()
  string(REPLACE ";" "," symbols "${symbols}")
  string(REPLACE "[" "(" symbols "${symbols}")
  string(REPLACE "]" ")" symbols "${symbols}")
  string(REPLACE "\n" ";" lines "${symbols}")
  foreach(line IN LISTS lines)
    if(NOT line MATCHES "^ +U (.+)$")
      continue()
    endif()
    set(name "${CMAKE_MATCH_1}")
    string(REGEX REPLACE "\\(.*$" "" name "${name}")  # arguments may be tensors
    string(REGEX REPLACE "<.*$" "" name "${name}")
    if(name MATCHES "(^| )(at|torch)::[A-Za-z_:~0-9]*$" AND NOT name MATCHES "(^| )at::(set|get)_num_(interop_)?threads$"
        AND NOT name MATCHES "^(vtable|typeinfo|typeinfo name) for ")
      get_filename_component(file ${library} NAME)
      string(APPEND problems "\n  ${file}: ${line}")
    endif()
  endforeach()
endforeach()
if(problems)
  message(FATAL_ERROR "ATen is called outside the op set (src/backend/ops.h); add an op instead:${problems}")
endif()
