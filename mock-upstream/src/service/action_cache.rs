use proto::reapi::{self, GetActionResultRequest};
use proto::wire::action_cache_server::ActionCache;
use proto::wire::{ActionResult, UpdateActionResultRequest};
use tonic::{Request, Response, Status};

use crate::call::CallHandle;
use crate::digest::Function;
use crate::log::Told;
use crate::name::check_instance;
use crate::rule::Act;
use crate::script::Script;
use crate::service::{Service, complete, invalid};
use crate::violation::pick;

/// Room for the other fields of a message whose bulk is one action result.
const FRAMING_BYTES: usize = 1024;

#[tonic::async_trait]
impl ActionCache for Service {
    async fn get_action_result(
        &self,
        request: Request<GetActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let answer = |call, request| self.answer_get_action_result(call, request);
        self.shared
            .bent(request, pick!(GetIn), pick!(GetOut), answer)
            .await
    }

    async fn update_action_result(
        &self,
        request: Request<UpdateActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let answer = |call, request| self.answer_update_action_result(call, request);
        self.shared
            .bent(request, pick!(PutIn), pick!(PutOut), answer)
            .await
    }
}

impl Service {
    async fn answer_get_action_result(
        &self,
        call: CallHandle,
        request: GetActionResultRequest,
    ) -> Result<ActionResult, Status> {
        let instance = &request.instance_name;
        let (function, offered) = self.function(request.digest_function);
        let action = function.from_wire(request.action_digest.as_ref());
        let mut script = call.identify(instance, action.iter().copied().collect());
        script.start().await?;
        check_instance(instance)?;
        offered?;
        let action = action?;
        script.end().await?;

        let require_complete = self.shared.settings.lock().require_complete;
        let usable = {
            let contents = self.shared.contents.lock();
            let stored = contents.action(instance, &action).map(ActionResult);
            stored.filter(|result| {
                !require_complete || complete::is_complete(&contents, instance, function, result)
            })
        };
        let hidden = || {
            script
                .lies(Some(&action), |act| *act == Act::SayMissing)
                .is_some()
        };
        let result = usable.filter(|_| !hidden());
        let result = result.ok_or_else(|| {
            call.tell(&action, Told::Missing);
            Status::not_found(action.to_string())
        })?;
        self.evict_outputs(&script, instance, function, &result);
        let length = result.0.len();
        let result = ActionResult(script.altered(&action, result.0, length));
        script.answered();
        call.tell_result(&action, &result.0);
        call.sent(result.0.len());
        Ok(result)
    }

    async fn answer_update_action_result(
        &self,
        call: CallHandle,
        request: UpdateActionResultRequest,
    ) -> Result<ActionResult, Status> {
        let instance = &request.instance_name;
        let (function, offered) = self.function(request.digest_function);
        let action = function.from_wire(request.action_digest.as_ref());
        let mut script = call.identify(instance, action.iter().copied().collect());
        call.received(request.action_result.as_ref().map_or(0, bytes::Bytes::len));
        script.start().await?;
        check_instance(instance)?;
        offered?;
        let action = action?;
        let raw = request
            .action_result
            .ok_or_else(|| invalid("action_result is missing"))?;
        let result = ActionResult(raw);
        let parsed = result.parse().map_err(|error| invalid(error.to_string()))?;
        check_result(function, &parsed)?;
        let (update_enabled, max_message) = {
            let settings = self.shared.settings.lock();
            (settings.update_enabled, settings.max_message_bytes)
        };
        if !update_enabled {
            return Err(Status::permission_denied("updates are not enabled"));
        }
        if result.0.len() + FRAMING_BYTES > max_message {
            return Err(invalid("the action result is larger than an answer may be"));
        }
        script.end().await?;
        if script.lies(Some(&action), |act| *act == Act::Drop).is_none() {
            self.shared
                .contents
                .lock()
                .put_action(instance, action, result.0.clone());
        }
        self.evict_outputs(&script, instance, function, &result);
        script.answered();
        call.tell_result(&action, &result.0);
        Ok(result)
    }

    fn evict_outputs(&self, script: &Script, instance: &str, function: Function, result: &ActionResult) {
        let mut contents = self.shared.contents.lock();
        let outputs = complete::outputs(&contents, instance, function, result);
        let stored: Vec<_> = outputs
            .into_iter()
            .filter(|digest| !digest.is_empty() && contents.has(instance, digest))
            .collect();
        if !stored.is_empty() && script.lies(None, |act| *act == Act::EvictOutputs).is_some() {
            for digest in &stored {
                contents.evict(instance, digest);
            }
        }
    }
}

/// Refuses results that nobody could use: malformed digests, inlined bytes that are not the ones their digest names.
fn check_result(function: Function, result: &reapi::ActionResult) -> Result<(), Status> {
    let check = |digest: Option<&reapi::Digest>, inlined: &[u8]| {
        let digest = function.from_wire(digest)?;
        match inlined.is_empty() || digest.fits(inlined) {
            true => Ok(()),
            false => Err(invalid(format!("the inlined bytes do not have digest {digest}"))),
        }
    };
    for file in &result.output_files {
        check(file.digest.as_ref(), &file.contents)?;
    }
    for directory in &result.output_directories {
        check(directory.tree_digest.as_ref(), &[])?;
        if directory.root_directory_digest.is_some() {
            check(directory.root_directory_digest.as_ref(), &[])?;
        }
    }
    // Unlike a file, a stream may be inlined only, or not be there at all.
    for (digest, inlined) in [
        (&result.stdout_digest, &result.stdout_raw),
        (&result.stderr_digest, &result.stderr_raw),
    ] {
        if digest.is_some() {
            check(digest.as_ref(), inlined)?;
        }
    }
    Ok(())
}
