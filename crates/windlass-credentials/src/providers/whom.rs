//! For whom a provider is asked: everything of a request that depends on the pod.

use std::collections::BTreeMap;

use windlass_core::keyring::Origin;
use windlass_core::provider::{AccountDecision, AccountKey, TokenAttributes, judge_account};
use windlass_core::reason::chain;

use super::Question;
use super::slot::{Inner, Slot};
use crate::accounts::ServiceAccount;
use crate::lookup::Asked;
use crate::provider::{ProviderRequest, ServiceAccountToken};

impl Slot {
    /// Everything of a request that depends on the pod; an error says why the provider is left alone.
    pub(super) async fn for_whom(
        &self,
        question: Question<'_>,
    ) -> Result<(ProviderRequest, Option<AccountKey>, Origin), Asked> {
        let request = |service_account| ProviderRequest { image: question.image.clone(), service_account };
        let plain = match &self.inner {
            Inner::Exec(_) => Origin::Plugin { name: self.name.clone() },
            Inner::Cloud(_) => Origin::Cloud { name: self.name.clone() },
        };
        let Some(wants) = self.config().and_then(|config| config.token.as_ref()) else {
            return Ok((request(None), None, plain));
        };
        match judge_account(wants, question.account.map(|account| &account.annotations)) {
            AccountDecision::Skip { why } => Err(Asked::Skipped { why }),
            AccountDecision::WithoutToken => Ok((request(None), None, plain)),
            AccountDecision::WithToken { annotations } => {
                let none = || Asked::Skipped { why: "there is no service account".to_owned() };
                let account = question.account.ok_or_else(none)?;
                self.with_token(wants, account, annotations, question).await
            }
        }
    }

    async fn with_token(
        &self,
        wants: &TokenAttributes,
        account: &ServiceAccount,
        annotations: BTreeMap<String, String>,
        question: Question<'_>,
    ) -> Result<(ProviderRequest, Option<AccountKey>, Origin), Asked> {
        let no_token = |why: String| Asked::NoToken { why };
        let none = || no_token("there are no tokens of service accounts here".to_owned());
        let tokens = question.tokens.ok_or_else(none)?;
        let (namespace, name) = (account.namespace.clone(), account.name.clone());
        let found = tokens.token(&namespace, &name, &wants.audience).await.map_err(|error| no_token(chain(&error)))?;
        let uid = if account.uid.is_empty() { found.uid } else { account.uid.clone() };
        let key = AccountKey {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: uid.clone(),
            annotations: annotations.clone(),
            token: None,
        };
        let key = key.with_token(&found.token, wants.cache_type);
        let service_account = Some(ServiceAccountToken { token: found.token, annotations });
        let request = ProviderRequest { image: question.image.clone(), service_account };
        Ok((request, Some(key), Origin::ServiceAccount { namespace, name, uid }))
    }
}
