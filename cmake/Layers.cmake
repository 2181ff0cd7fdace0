# The layers of the design: folder under src/ (or kernels) -> level. An include may go to a strictly lower level or stay
# in its own folder. Read by CheckLayers.cmake; beamline_library() calls state the same levels for targets.
set(BEAMLINE_LAYERS
  base=0 kernels=1 sid=1 data=1 scheduler=1 repository=1 loadgen=1 parallel=1 catalogue=2 history=2 backend=3 model=4 decode=5 runtime=6
  train=7 engine=7 server=8 cli=9)
# What levels may not include, by regular expression on the header's path.
set(BEAMLINE_TORCH_HEADERS "^(ATen|c10|caffe2|torch)/")
set(BEAMLINE_TORCH_LAYERS backend model decode runtime train)  # the only folders that may see torch
set(BEAMLINE_CUDA_HEADERS "^(cuda|cublas|cudnn|nccl|nvrtc|nvToolsExt|mma\\.h|cub/|thrust/)")
set(BEAMLINE_CUDA_LAYERS kernels backend)
set(BEAMLINE_GRPC_HEADERS "^(grpc|grpcpp|google/protobuf)/|\\.pb\\.h$")
set(BEAMLINE_GRPC_LAYERS server cli)
