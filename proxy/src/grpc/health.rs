//! grpc.health.v1 and reflection: what tools ask, answered by the services that tonic brings.

use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

/// Services that this node offers, as reflection lists them and as health knows them. The descriptors know more than is
/// served.
const SERVICES: [&str; 4] = [
    "build.bazel.remote.execution.v2.ActionCache",
    "build.bazel.remote.execution.v2.Capabilities",
    "build.bazel.remote.execution.v2.ContentAddressableStorage",
    "google.bytestream.ByteStream",
];

/// Says over grpc.health.v1 whether this node wants traffic. Not serving until told otherwise.
#[derive(Debug, Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// Says it for the server and for each of its services; watchers are told.
    pub async fn set_serving(&self, serving: bool) {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in SERVICES.into_iter().chain([""]) {
            self.0.set_service_status(service, status).await;
        }
    }
}

/// The two services, and the switch of the first.
///
/// # Errors
/// If the descriptors cannot be read, which the tests of this file rule out.
pub(super) async fn routes() -> Result<(Routes, Health), tonic_reflection::server::Error> {
    let (reporter, health) = health_reporter();
    let mut reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.health.v1.Health")
        .with_service_name("grpc.reflection.v1.ServerReflection");
    for service in SERVICES {
        reflection = reflection.with_service_name(service);
    }
    let switch = Health(reporter);
    switch.set_serving(false).await;
    let routes = Routes::new(health).add_service(reflection.build_v1()?).prepare();
    Ok((routes, switch))
}
