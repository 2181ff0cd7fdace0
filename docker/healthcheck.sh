#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Exit 0 where the server in this container should get traffic. Bash alone: the image has no HTTP client.
exec 3<>/dev/tcp/127.0.0.1/"${1:-50053}" || exit 1
printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
IFS= read -r -t 2 answer <&3 && [[ $answer == *' 200 '* ]]
