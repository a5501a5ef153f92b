// A generated service answers a generated client over the loopback interface.

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "bazel/tests/echo.grpc.pb.h"

namespace moebius::build_test {
namespace {

class DoublingEcho : public Echo::Service {
  grpc::Status Double(grpc::ServerContext*, const Text* request, Text* reply) override {
    reply->set_value(request->value() + request->value());
    return grpc::Status::OK;
  }
};

TEST(Grpc, UnaryCallOverLoopback) {
  DoublingEcho service;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  ASSERT_NE(server, nullptr);

  const auto stub = Echo::NewStub(
      grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()));
  Text request, reply;
  request.set_value("ab");
  grpc::ClientContext context;
  const grpc::Status status = stub->Double(&context, request, &reply);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(reply.value(), "abab");
}

}  // namespace
}  // namespace moebius::build_test
