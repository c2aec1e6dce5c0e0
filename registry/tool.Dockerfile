# A tool host: the runtime with another command; build it in the folder of your tools, with that as the context.
ARG RUNTIME
FROM ${RUNTIME}
COPY --chmod=755 *.py *.yaml /opt/tools/
WORKDIR /opt/tools
EXPOSE 7080 7099 9090
ENTRYPOINT ["python", "-m", "meshwright.registry.tool"]
