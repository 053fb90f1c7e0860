//! gRPC server reflection, versions 1 and 1alpha, over whatever types the grid has at the moment.

use crate::descriptors::Descriptors;
use afdg_proto::PUBLIC_DESCRIPTORS;
use afdg_router::Router;
use futures::{Stream, StreamExt};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};
use tonic::{Request, Response, Status, Streaming};

/// Built-in services that are listed beside the agent types.
const PUBLIC: [&[u8]; 4] = [
    PUBLIC_DESCRIPTORS,
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
];

#[derive(Clone)]
pub(crate) struct Reflection {
    router: Router,
    /// Made anew when the types change.
    latest: Arc<Mutex<Option<Latest>>>,
}

struct Latest {
    types: Vec<Arc<afdg_catalog_client::TypeInfo>>,
    descriptors: Arc<Descriptors>,
}

impl Reflection {
    pub(crate) fn new(router: Router) -> Self {
        Self { router, latest: Arc::default() }
    }

    fn descriptors(&self) -> Arc<Descriptors> {
        let routes = self.router.routes();
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(latest) = &*latest
            && latest.types.len() == routes.types.len()
            && latest.types.iter().zip(routes.types.values()).all(|(known, now)| Arc::ptr_eq(known, now))
        {
            return Arc::clone(&latest.descriptors);
        }
        let descriptors = Arc::new(Descriptors::new(&PUBLIC, &routes.types));
        let types = routes.types.values().cloned().collect();
        *latest = Some(Latest { types, descriptors: Arc::clone(&descriptors) });
        descriptors
    }
}

/// The two versions differ in their package's name only.
macro_rules! serve_reflection {
    ($version:ident) => {
        pub(crate) mod $version {
            use super::*;
            use tonic_reflection::pb::$version::{
                ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
                ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
                server_reflection_server::ServerReflection,
            };

            #[tonic::async_trait]
            impl ServerReflection for Reflection {
                type ServerReflectionInfoStream =
                    Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

                async fn server_reflection_info(
                    &self,
                    request: Request<Streaming<ServerReflectionRequest>>,
                ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
                    let this = self.clone();
                    let responses = request.into_inner().map(move |request| {
                        let request = request?;
                        let answer = answer(&this.descriptors(), request.message_request.as_ref());
                        Ok(ServerReflectionResponse {
                            valid_host: request.host.clone(),
                            message_response: Some(answer),
                            original_request: Some(request),
                        })
                    });
                    Ok(Response::new(Box::pin(responses)))
                }
            }

            pub(crate) fn answer(all: &Descriptors, request: Option<&MessageRequest>) -> MessageResponse {
                let refuse = |code: tonic::Code, error_message: String| {
                    MessageResponse::ErrorResponse(ErrorResponse { error_code: code as i32, error_message })
                };
                let missing = |what: &str| refuse(tonic::Code::NotFound, format!("{what} is not known here"));
                let files = |files: Option<Vec<Vec<u8>>>, what: &str| match files {
                    Some(file_descriptor_proto) => {
                        MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                            file_descriptor_proto,
                        })
                    }
                    None => missing(what),
                };
                match request {
                    None => refuse(tonic::Code::InvalidArgument, "the request asks nothing".to_owned()),
                    Some(MessageRequest::ListServices(_)) => {
                        let service =
                            all.services().map(|name| ServiceResponse { name: name.to_owned() }).collect();
                        MessageResponse::ListServicesResponse(ListServiceResponse { service })
                    }
                    Some(MessageRequest::FileByFilename(name)) => files(all.file_by_name(name), name),
                    Some(MessageRequest::FileContainingSymbol(name)) => {
                        files(all.file_with_symbol(name), name)
                    }
                    Some(MessageRequest::FileContainingExtension(wanted)) => files(
                        all.file_with_extension(&wanted.containing_type, wanted.extension_number),
                        &wanted.containing_type,
                    ),
                    Some(MessageRequest::AllExtensionNumbersOfType(name)) => {
                        match all.extension_numbers(name) {
                            None => missing(name),
                            Some(extension_number) => {
                                MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                                    base_type_name: name.clone(),
                                    extension_number,
                                })
                            }
                        }
                    }
                }
            }
        }
    };
}

serve_reflection!(v1);
serve_reflection!(v1alpha);
